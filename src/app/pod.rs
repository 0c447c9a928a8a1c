//! The identity of this pod: from the bootstrap file, the environment and the downward API's files,
//! under the names that Istio's own sidecar uses; and what data path and control plane need of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use outrigger_control::xds::{NodeIdentity, XdsAddress, XdsSettings, parse_labels};
use outrigger_diagnostic::Diagnostic;
use outrigger_policy::Side;
use outrigger_proxy::{ListenAddress, MeshSettings};

use crate::app::config::{Config, MeshConfig, PolicyConfig, XdsConfig};

/// Where Istio's injector mounts the labels of a pod.
const LABELS_FILE: &str = "/etc/istio/pod/labels";
/// Labels that name a workload, in Istio's order of precedence for its canonical service.
const WORKLOAD_LABELS: [&str; 3] =
    ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];

/// What is known about this pod. Everything but the namespace may be unknown outside of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// Name of the pod.
    pub pod: Option<String>,
    /// Namespace of the pod; `default` where nothing names it.
    pub namespace: String,
    /// Its SPIFFE identity without `spiffe://`, as Istio issues it, where the service account is
    /// known.
    identity: Option<Box<str>>,
    /// Its addresses, as written.
    addresses: Vec<String>,
    /// Name of its cluster, as istiod knows it.
    cluster_id: String,
    /// Version of Istio, where it is told.
    istio_version: Option<String>,
    /// Where its labels are written, and what is written there.
    labels_file: Option<PathBuf>,
    labels: BTreeMap<String, String>,
}

impl PodIdentity {
    /// Gathers what is known. `env` reads the environment.
    pub fn gather(config: &MeshConfig, env: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|text| !text.is_empty());
        let addresses = match &config.pod_addresses {
            Some(addresses) => addresses.iter().map(ToString::to_string).collect(),
            None => env("INSTANCE_IPS")
                .or_else(|| env("INSTANCE_IP"))
                .map(|text| text.split(',').map(|part| part.trim().to_owned()).collect())
                .unwrap_or_default(),
        };
        // A file that is named must exist; the default one need not.
        let named =
            config.labels_file.clone().or_else(|| env("OUTRIGGER_POD_LABELS").map(Into::into));
        let usual = || Some(PathBuf::from(LABELS_FILE)).filter(|path| path.exists());
        let labels_file = named.or_else(usual);
        let text = labels_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let or_env = |given: &Option<String>, name: &str| given.clone().or_else(|| env(name));
        let namespace =
            or_env(&config.namespace, "POD_NAMESPACE").unwrap_or_else(|| "default".into());
        let domain =
            or_env(&config.trust_domain, "TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".into());
        let account = or_env(&config.service_account, "SERVICE_ACCOUNT");
        PodIdentity {
            pod: or_env(&config.pod_name, "POD_NAME"),
            identity: account.map(|account| format!("{domain}/ns/{namespace}/sa/{account}").into()),
            namespace,
            addresses,
            cluster_id: or_env(&config.cluster_id, "CLUSTER_ID")
                .unwrap_or_else(|| "Kubernetes".into()),
            istio_version: or_env(&config.istio_version, "ISTIO_VERSION"),
            labels: text.as_deref().map(parse_labels).unwrap_or_default(),
            labels_file,
        }
    }

    /// The workload of the pod: what its labels say, as Istio's canonical service, or its name
    /// without what a ReplicaSet or StatefulSet has appended.
    pub fn workload(&self) -> Option<String> {
        let label = WORKLOAD_LABELS.iter().find_map(|name| self.labels.get(*name));
        label.cloned().or_else(|| self.pod.as_deref().map(|pod| workload_of_pod(pod).to_owned()))
    }

    /// What the data path has to know about the pod.
    ///
    /// # Errors
    /// When it could not tell this pod from others.
    pub fn mesh_settings(
        &self,
        listeners: &[(ListenAddress, Option<Side>)],
        config: &Config,
        own_ports: Vec<u16>,
    ) -> Result<MeshSettings, Diagnostic> {
        let mut pod_addresses = Vec::new();
        for text in &self.addresses {
            let address: IpAddr = text.parse().map_err(|_| {
                let fix = "set INSTANCE_IP to status.podIP";
                let reason = format!("\"{text}\" is no IP address");
                Diagnostic::new(reason).at("mesh.podAddresses").fix(fix)
            })?;
            pod_addresses.push(address.to_canonical());
        }
        let needs = listeners.iter().any(|(_, side)| side.is_some());
        if needs && pod_addresses.is_empty() && config.upstream.url.is_none() {
            let reason =
                "the address of this pod is not known, and requests are forwarded to nothing else";
            return Err(Diagnostic::new(reason)
                .at("mesh.podAddresses")
                .fix("set INSTANCE_IP from the downward API (status.podIP)"));
        }
        Ok(MeshSettings { identity: self.identity.clone(), pod_addresses, own_ports })
    }

    /// How istiod is reached.
    ///
    /// # Errors
    /// With the field, the reason and the fix.
    pub fn xds_settings(
        &self,
        xds: &XdsConfig,
        policy: &PolicyConfig,
    ) -> Result<XdsSettings, Diagnostic> {
        let address =
            XdsAddress::parse(&xds.address).map_err(|found| found.at("policy.xds.address"))?;
        let pod = self.pod.clone().ok_or_else(|| {
            let fix =
                "set POD_NAME from the downward API (metadata.name), and POD_NAMESPACE beside it";
            Diagnostic::new("istiod has to know which pod this is").at("mesh.podName").fix(fix)
        })?;
        for (path, name) in [("mesh.podName", &pod), ("mesh.namespace", &self.namespace)] {
            let good = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            if name.is_empty() || name.len() > 253 || !name.chars().all(good) {
                let reason = format!("\"{name}\" must be 1 to 253 letters, digits, '-' or '.'");
                return Err(Diagnostic::new(reason).at(path));
            }
        }
        Ok(XdsSettings {
            address,
            server_name: xds.server_name.clone(),
            token_file: xds.token_file.clone(),
            ca_file: xds.ca_file.clone(),
            identity: NodeIdentity {
                pod,
                namespace: self.namespace.clone(),
                cluster_id: self.cluster_id.clone(),
                istio_version: self.istio_version.clone(),
                labels_file: self.labels_file.clone(),
            },
            state_dir: policy.state_dir.clone(),
        })
    }
}

fn workload_of_pod(pod: &str) -> &str {
    // The random ends that Kubernetes makes have no vowels.
    let made_up = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit() || b"bcdfghjklmnpqrstvwxz".contains(&b))
    };
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return rest;
    }
    if last.len() != 5 || !made_up(last) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((workload, hash)) if (8..=10).contains(&hash.len()) && made_up(hash) => workload,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let labels = dir.path().join("labels");
        std::fs::write(&labels, "app=\"reviews\"\nversion=\"v1\"\n").unwrap();
        let found = PodIdentity::gather(&MeshConfig::default(), |name| match name {
            "POD_NAME" => Some("reviews-v1-545db77b95-zxc7v".to_owned()),
            "POD_NAMESPACE" => Some("bookinfo".to_owned()),
            "INSTANCE_IP" => Some("10.77.0.3, fd00::3".to_owned()),
            "OUTRIGGER_POD_LABELS" => Some(labels.display().to_string()),
            _ => None,
        });
        assert_eq!(found.workload().as_deref(), Some("reviews"));
        let inbound = [(ListenAddress::parse("127.0.0.1:1").unwrap(), Some(Side::Inbound))];
        let settings = found.mesh_settings(&inbound, &Config::default(), vec![1]).unwrap();
        let addresses: Vec<String> =
            settings.pod_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.77.0.3", "fd00::3"]);
        let xds = found.xds_settings(&XdsConfig::default(), &PolicyConfig::default()).unwrap();
        assert_eq!(xds.identity.cluster_id, "Kubernetes");
        assert!(
            xds.identity.node_id().contains("~reviews-v1-545db77b95-zxc7v-outrigger.bookinfo~")
        );
    }

    #[test]
    fn what_is_missing_is_named_with_the_fix() {
        let nobody = PodIdentity::gather(&MeshConfig::default(), |_| None);
        let inbound = [(ListenAddress::parse("127.0.0.1:1").unwrap(), Some(Side::Inbound))];
        let error = nobody.mesh_settings(&inbound, &Config::default(), vec![]).unwrap_err();
        assert!(error.to_string().contains("INSTANCE_IP"), "{error}");
        let error =
            nobody.xds_settings(&XdsConfig::default(), &PolicyConfig::default()).unwrap_err();
        assert!(error.to_string().contains("POD_NAME"), "{error}");
    }

    #[test]
    fn a_pod_belongs_to_its_workload() {
        for (pod, workload) in [
            ("reviews-v1-545db77b95-zxc7v", "reviews-v1"),
            ("redis-0", "redis"),
            ("agent-7xk2p", "agent"),
            ("plain", "plain"),
            ("my-front", "my-front"),
        ] {
            assert_eq!(workload_of_pod(pod), workload, "{pod}");
        }
    }
}
