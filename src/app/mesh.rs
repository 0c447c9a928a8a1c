//! Who this pod is: from the bootstrap file, the environment and the downward API's files, under the
//! names that Istio's own sidecar uses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use outrigger_control::xds::{NodeIdentity, XdsAddress, XdsSettings, parse_labels};
use outrigger_proxy::{ListenAddress, MeshSettings, Mode};

use crate::app::build::PlanError;
use crate::app::config::{Config, MeshConfig, PolicyConfig, XdsConfig};

/// Where Istio's injector mounts the labels of a pod.
const LABELS_FILE: &str = "/etc/istio/pod/labels";
/// Labels that name a workload, in Istio's order of precedence for its canonical service.
const WORKLOAD_LABELS: [&str; 3] =
    ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];

/// What is known about this pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Name of the pod.
    pub pod: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its identity, as Istio issues it, where the service account is known.
    identity: Option<Box<str>>,
    /// Its addresses, as written.
    addresses: Vec<String>,
    cluster_id: String,
    istio_version: Option<String>,
    labels_file: Option<PathBuf>,
    labels: BTreeMap<String, String>,
}

/// Gathers what is known. `env` reads the environment.
pub fn who(config: &MeshConfig, env: impl Fn(&str) -> Option<String>) -> Who {
    let env = |name: &str| env(name).filter(|text| !text.is_empty());
    let addresses = match &config.pod_addresses {
        Some(addresses) => addresses.iter().map(ToString::to_string).collect(),
        None => env("INSTANCE_IPS")
            .or_else(|| env("INSTANCE_IP"))
            .map(|text| text.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default(),
    };
    // A file that is named is wanted; the usual place may well be empty.
    let named = config.labels_file.clone().or_else(|| env("OUTRIGGER_POD_LABELS").map(Into::into));
    let usual = || Some(PathBuf::from(LABELS_FILE)).filter(|path| path.exists());
    let labels_file = named.or_else(usual);
    let text = labels_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    let or_env = |given: &Option<String>, name: &str| given.clone().or_else(|| env(name));
    let namespace = or_env(&config.namespace, "POD_NAMESPACE").unwrap_or_else(|| "default".into());
    let domain =
        or_env(&config.trust_domain, "TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".into());
    let account = or_env(&config.service_account, "SERVICE_ACCOUNT");
    Who {
        pod: or_env(&config.pod_name, "POD_NAME"),
        identity: account.map(|account| format!("{domain}/ns/{namespace}/sa/{account}").into()),
        namespace,
        addresses,
        cluster_id: or_env(&config.cluster_id, "CLUSTER_ID").unwrap_or_else(|| "Kubernetes".into()),
        istio_version: or_env(&config.istio_version, "ISTIO_VERSION"),
        labels: text.as_deref().map(parse_labels).unwrap_or_default(),
        labels_file,
    }
}

impl Who {
    /// The workload of the pod: what its labels say, as Istio's canonical service, or its name
    /// without what a ReplicaSet or StatefulSet has appended.
    pub fn workload(&self) -> Option<String> {
        let label = WORKLOAD_LABELS.iter().find_map(|name| self.labels.get(*name));
        label.cloned().or_else(|| self.pod.as_deref().map(|pod| workload_of_pod(pod).to_owned()))
    }
}

fn workload_of_pod(pod: &str) -> &str {
    // Names that Kubernetes makes up have no vowels, so that they spell nothing.
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

/// What the data path has to know about the pod.
///
/// # Errors
/// When it could not tell this pod from others.
pub fn settings(
    who: &Who,
    listeners: &[(ListenAddress, Mode)],
    config: &Config,
    own_ports: Vec<u16>,
) -> Result<MeshSettings, PlanError> {
    let mut pod_addresses = Vec::new();
    for text in &who.addresses {
        let address: IpAddr = text.parse().map_err(|_| {
            let reason = format!("\"{text}\" is no IP address; set INSTANCE_IP to status.podIP");
            PlanError::new("mesh.podAddresses", reason)
        })?;
        pod_addresses.push(address.to_canonical());
    }
    let needs = listeners.iter().any(|(_, mode)| *mode != Mode::Direct);
    if needs && pod_addresses.is_empty() && config.upstream.url.is_none() {
        return Err(PlanError::new(
            "mesh.podAddresses",
            "the address of this pod is not known, and requests are forwarded to nothing else; \
             set INSTANCE_IP from the downward API (status.podIP)",
        ));
    }
    Ok(MeshSettings { identity: who.identity.clone(), pod_addresses, own_ports })
}

/// How istiod is reached.
///
/// # Errors
/// With the field, the reason and the fix.
pub fn xds(xds: &XdsConfig, policy: &PolicyConfig, who: &Who) -> Result<XdsSettings, PlanError> {
    let address = XdsAddress::parse(&xds.address)
        .map_err(|found| PlanError::new("policy.xds.address", found.to_string()))?;
    let pod = who.pod.clone().ok_or_else(|| {
        let reason = "istiod has to know which pod this is; set POD_NAME from the downward API \
                      (metadata.name), and POD_NAMESPACE beside it";
        PlanError::new("mesh.podName", reason)
    })?;
    for (path, name) in [("mesh.podName", &pod), ("mesh.namespace", &who.namespace)] {
        let good = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if name.is_empty() || name.len() > 253 || !name.chars().all(good) {
            let reason = format!("\"{name}\" must be 1 to 253 letters, digits, '-' or '.'");
            return Err(PlanError::new(path, reason));
        }
    }
    Ok(XdsSettings {
        address,
        server_name: xds.server_name.clone(),
        token_file: xds.token_file.clone(),
        ca_file: xds.ca_file.clone(),
        identity: NodeIdentity {
            pod,
            namespace: who.namespace.clone(),
            cluster_id: who.cluster_id.clone(),
            istio_version: who.istio_version.clone(),
            labels_file: who.labels_file.clone(),
        },
        state_dir: policy.state_dir.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let labels = dir.path().join("labels");
        std::fs::write(&labels, "app=\"reviews\"\nversion=\"v1\"\n").unwrap();
        let found = who(&MeshConfig::default(), |name| match name {
            "POD_NAME" => Some("reviews-v1-545db77b95-zxc7v".to_owned()),
            "POD_NAMESPACE" => Some("bookinfo".to_owned()),
            "INSTANCE_IP" => Some("10.77.0.3, fd00::3".to_owned()),
            "OUTRIGGER_POD_LABELS" => Some(labels.display().to_string()),
            _ => None,
        });
        assert_eq!(found.workload().as_deref(), Some("reviews"));
        let inbound = [(ListenAddress::parse("127.0.0.1:1").unwrap(), Mode::Inbound)];
        let settings = settings(&found, &inbound, &Config::default(), vec![1]).unwrap();
        let addresses: Vec<String> =
            settings.pod_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.77.0.3", "fd00::3"]);
        let xds = xds(&XdsConfig::default(), &PolicyConfig::default(), &found).unwrap();
        assert_eq!(xds.identity.cluster_id, "Kubernetes");
        assert!(
            xds.identity.node_id().contains("~reviews-v1-545db77b95-zxc7v-outrigger.bookinfo~")
        );
    }

    #[test]
    fn what_is_missing_is_named_with_the_fix() {
        let nobody = who(&MeshConfig::default(), |_| None);
        let inbound = [(ListenAddress::parse("127.0.0.1:1").unwrap(), Mode::Inbound)];
        let error = settings(&nobody, &inbound, &Config::default(), vec![]).unwrap_err();
        assert!(error.to_string().contains("INSTANCE_IP"), "{error}");
        let error = xds(&XdsConfig::default(), &PolicyConfig::default(), &nobody).unwrap_err();
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
