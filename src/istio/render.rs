//! The objects that send a workload's traffic through Outrigger.

use outrigger_diagnostic::Diagnostic;

use crate::istio::values::{check_name, fill, selector};

const INBOUND_CLUSTERS: &str = include_str!("templates/inbound-clusters.yaml");
const INBOUND_ROUTES: &str = include_str!("templates/inbound-routes.yaml");
const SIDECAR: &str = include_str!("templates/sidecar.yaml");
const SIDECAR_CLUSTERS: &str = include_str!("templates/sidecar-clusters.yaml");
const SIDECAR_ROUTES: &str = include_str!("templates/sidecar-routes.yaml");
const OUTBOUND_EGRESS: &str = include_str!("templates/outbound-egress.yaml");
const OUTBOUND_CLUSTERS: &str = include_str!("templates/outbound-clusters.yaml");
const OUTBOUND_ROUTES: &str = include_str!("templates/outbound-routes.yaml");

/// The workload that objects are for.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Beginning of the objects' names.
    pub name: String,
    /// Namespace of the workload and its objects.
    pub namespace: String,
    /// Labels of its pods, `key=value`, at least one.
    pub selector: Vec<String>,
}

/// What an inbound port is taken over by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Variant {
    /// A route and a cluster of our own, by EnvoyFilter. gRPC and upgrades stay with Envoy.
    #[default]
    Route,
    /// Istio's Sidecar resource, with EnvoyFilters for the fall-back only.
    Sidecar,
}

/// What the application speaks on its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AppProtocol {
    /// HTTP/1.1: ports that Istio knows as `http`.
    #[default]
    Http1,
    /// HTTP/2 in the clear: ports that Istio knows as `http2`.
    Http2,
}

/// An inbound port that does not go through Outrigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherPort {
    /// The port as the application listens on it.
    pub number: u16,
    /// Its protocol, in Istio's words.
    pub protocol: String,
}

impl OtherPort {
    /// Reads `PORT` (TCP) or `PORT/PROTOCOL`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        const KNOWN: [&str; 7] = ["TCP", "TLS", "HTTP", "HTTP2", "GRPC", "HTTPS", "MONGO"];
        let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let protocol = protocol.to_ascii_uppercase();
        match number.parse() {
            Ok(number) if KNOWN.contains(&protocol.as_str()) => Ok(OtherPort { number, protocol }),
            _ => {
                let reason = format!("\"{text}\" is no port: write 9090 (TCP) or 9090/GRPC");
                Err(Diagnostic::new(reason))
            }
        }
    }
}

/// Requests for the workload.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Target ports, which the application listens on.
    pub ports: Vec<u16>,
    /// What the ports are taken over by.
    pub variant: Variant,
    /// Further inbound ports, which stay as they are; a Sidecar must list them.
    pub other_ports: Vec<OtherPort>,
    /// What the application speaks.
    pub protocol: AppProtocol,
    /// The port on which Outrigger listens.
    pub listener_port: u16,
    /// Seconds without a first byte after which GET and HEAD are sent past Outrigger as well.
    pub hang_after: u32,
}

/// Requests of the workload.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Host names as Istio has them, fully qualified.
    pub hosts: Vec<String>,
    /// Port of the services.
    pub port: u16,
    /// The port on which Outrigger listens.
    pub listener_port: u16,
    /// Seconds without a first byte after which GET and HEAD are sent past Outrigger as well.
    pub hang_after: u32,
}

/// Characters of a workload's name at most, so that the longest object name has 253 or fewer.
const NAME_MAX: usize = 63;

impl Workload {
    /// Checks the values and returns the selector as YAML.
    fn checked(&self) -> Result<String, Diagnostic> {
        check_name("--name", &self.name, NAME_MAX, false)?;
        check_name("--namespace", &self.namespace, 63, false)?;
        if self.selector.is_empty() {
            let reason =
                "it is missing: without it every workload of the namespace would be concerned";
            return Err(Diagnostic::new(reason)
                .at("--selector")
                .fix("write --selector app=reviews"));
        }
        selector(&self.selector)
    }
}

impl Inbound {
    /// The objects in the order in which they are applied: clusters and routes, or for a Sidecar
    /// routes, the Sidecar, clusters.
    ///
    /// # Errors
    /// With the argument, the reason and the fix.
    pub fn render(&self, workload: &Workload) -> Result<Vec<String>, Diagnostic> {
        let selector = workload.checked()?;
        let mut objects = Vec::new();
        if self.ports.is_empty() {
            let reason =
                "it is missing: write --port with the port that the application listens on";
            return Err(Diagnostic::new(reason).at("--port"));
        }
        let protocol = match self.protocol {
            AppProtocol::Http1 => "http_protocol_options",
            AppProtocol::Http2 => "http2_protocol_options",
        };
        let (listener, hang_after) = (self.listener_port.to_string(), seconds(self.hang_after)?);
        let common = [
            ("name", workload.name.as_str()),
            ("namespace", workload.namespace.as_str()),
            ("selector", selector.as_str()),
            ("inbound_port", listener.as_str()),
            ("hang_after", hang_after.as_str()),
            ("protocol", protocol),
        ];
        // With a Sidecar the routes come first: they remove the header fields that only Envoy may
        // set. The clusters come last: without the Sidecar, those to be patched are of another kind.
        let templates = match self.variant {
            Variant::Route => [INBOUND_CLUSTERS, INBOUND_ROUTES],
            Variant::Sidecar => [SIDECAR_ROUTES, SIDECAR_CLUSTERS],
        };
        for (nth, template) in templates.into_iter().enumerate() {
            if nth == 1 && self.variant == Variant::Sidecar {
                objects.push(self.sidecar(&common));
            }
            let fill_port = |port: &u16| {
                let port = port.to_string();
                let values: Vec<_> = common.iter().copied().chain([("port", &*port)]).collect();
                fill(template, &values)
            };
            objects.extend(self.ports.iter().map(fill_port));
        }
        Ok(objects)
    }

    fn sidecar(&self, common: &[(&str, &str)]) -> String {
        let ingress = self.ingress();
        let values: Vec<_> = common.iter().copied().chain([("ingress", &*ingress)]).collect();
        fill(SIDECAR, &values)
    }

    fn ingress(&self) -> String {
        let entry = |port: u16, protocol: &str, endpoint: u16| {
            let name = format!("{}-{port}", protocol.to_ascii_lowercase());
            format!(
                "  - port: {{number: {port}, protocol: {protocol}, name: {name}}}\n    \
                 defaultEndpoint: 127.0.0.1:{endpoint}\n"
            )
        };
        let cached = self.ports.iter().map(|port| entry(*port, "HTTP", self.listener_port));
        let others =
            self.other_ports.iter().map(|other| entry(other.number, &other.protocol, other.number));
        let all: String = cached.chain(others).collect();
        all.trim_end().to_owned()
    }
}

fn seconds(hang_after: u32) -> Result<String, Diagnostic> {
    match hang_after {
        1..=3600 => Ok(format!("{hang_after}s")),
        _ => Err(Diagnostic::new("write 1 to 3600 seconds").at("--hang-after")),
    }
}

impl Outbound {
    /// The objects, clusters first.
    ///
    /// # Errors
    /// With the argument, the reason and the fix.
    pub fn render(&self, workload: &Workload) -> Result<Vec<String>, Diagnostic> {
        let selector = workload.checked()?;
        if self.hosts.is_empty() {
            let reason = "it is missing: write --host reviews.bookinfo.svc.cluster.local";
            return Err(Diagnostic::new(reason).at("--host"));
        }
        let (port, listener) = (self.port.to_string(), self.listener_port.to_string());
        let hang_after = seconds(self.hang_after)?;
        let common = [
            ("name", workload.name.as_str()),
            ("namespace", workload.namespace.as_str()),
            ("selector", selector.as_str()),
            ("port", port.as_str()),
            ("outbound_port", listener.as_str()),
            ("hang_after", hang_after.as_str()),
        ];
        let mut objects = vec![fill(OUTBOUND_EGRESS, &common)];
        for template in [OUTBOUND_CLUSTERS, OUTBOUND_ROUTES] {
            for host in &self.hosts {
                check_name("--host", host, 150, true)?;
                let short = host.strip_suffix(".svc.cluster.local").unwrap_or(host);
                let values: Vec<_> =
                    common.iter().copied().chain([("host", &**host), ("short", short)]).collect();
                objects.push(fill(template, &values));
            }
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn workload() -> Workload {
        Workload {
            name: "reviews".to_owned(),
            namespace: "bookinfo".to_owned(),
            selector: vec!["app=reviews".to_owned()],
        }
    }

    fn inbound(variant: Variant) -> Inbound {
        Inbound {
            ports: vec![8080, 9090],
            variant,
            other_ports: vec![OtherPort::parse("7070/grpc").unwrap()],
            protocol: AppProtocol::Http1,
            listener_port: 15480,
            hang_after: 5,
        }
    }

    fn parsed(objects: &[String]) -> Vec<Value> {
        objects.iter().map(|text| serde_yaml::from_str(text).unwrap()).collect()
    }

    #[test]
    fn clusters_and_routes_are_objects_of_their_own_and_clusters_come_first() {
        for variant in [Variant::Route, Variant::Sidecar] {
            let objects = parsed(&inbound(variant).render(&workload()).unwrap());
            let names: Vec<&str> =
                objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
            let first = [
                "reviews-in-8080-clusters",
                "reviews-in-9090-clusters",
                "reviews-in-8080-routes",
                "reviews-in-9090-routes",
            ];
            let mut expected = first.to_vec();
            if variant == Variant::Sidecar {
                expected.rotate_left(2);
                expected.insert(2, "reviews");
            }
            assert_eq!(names, expected);
            for object in objects.iter().filter(|object| object["kind"] == "EnvoyFilter") {
                let kinds: std::collections::BTreeSet<bool> = object["spec"]["configPatches"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|patch| patch["applyTo"] == "CLUSTER")
                    .collect();
                assert_eq!(kinds.len(), 1, "{object:#}");
            }
        }
    }

    #[test]
    fn a_sidecar_lists_all_ports() {
        let objects = parsed(&inbound(Variant::Sidecar).render(&workload()).unwrap());
        let ingress = &objects[2]["spec"]["ingress"];
        let endpoints: Vec<_> = ingress
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["port"]["number"].as_u64().unwrap(), one["defaultEndpoint"].clone()))
            .collect();
        let expected =
            [(8080, "127.0.0.1:15480"), (9090, "127.0.0.1:15480"), (7070, "127.0.0.1:7070")];
        assert_eq!(endpoints, expected.map(|(port, to)| (port, Value::from(to))));
        assert_eq!(ingress[2]["port"]["protocol"], "GRPC");
        assert!(OtherPort::parse("80/SPDY").unwrap_err().to_string().contains("9090/GRPC"));
    }

    #[test]
    fn outbound_has_one_cluster_for_outrigger_and_two_objects_for_each_host() {
        let hosts = ["reviews.bookinfo.svc.cluster.local", "api.example.com"];
        let outbound = Outbound {
            hosts: hosts.map(str::to_owned).to_vec(),
            port: 9080,
            listener_port: 15481,
            hang_after: 5,
        };
        let objects = parsed(&outbound.render(&workload()).unwrap());
        let names: Vec<&str> =
            objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "reviews-out-egress",
                "reviews-out-reviews.bookinfo-9080-clusters",
                "reviews-out-api.example.com-9080-clusters",
                "reviews-out-reviews.bookinfo-9080-routes",
                "reviews-out-api.example.com-9080-routes",
            ]
        );
    }

    #[test]
    fn mistakes_name_the_argument() {
        let with = |change: fn(&mut Workload)| {
            let mut workload = workload();
            change(&mut workload);
            inbound(Variant::Route).render(&workload).unwrap_err().to_string()
        };
        assert!(with(|w| w.selector.clear()).starts_with("--selector: it is missing"));
        assert!(with(|w| w.name = "a: b".to_owned()).starts_with("--name: "));
        assert!(with(|w| w.namespace = String::new()).starts_with("--namespace: "));
    }
}
