//! The identity of this client towards istiod.
//!
//! istiod finds the Envoy of a pod by the pod's address, and `istioctl` by its name: an identity
//! with the same ones would receive pushes that are meant for Envoy. So the address is one that no
//! pod has, and the name has a suffix of its own. `PROXY_CONFIG` makes the connection visible to
//! `istioctl proxy-status`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::xds::error::XdsError;
use crate::xds::proto::Node;
use crate::xds::values::{nested, text, to_struct};

/// A valid address that no pod has: Envoy uses it as the source of inbound connections.
const ADDRESS: &str = "127.0.0.6";

/// Who this pod is, as istiod must know it to choose policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Name of the pod.
    pub pod: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the cluster as istiod knows it.
    pub cluster_id: String,
    /// Version of Istio, for EnvoyFilters that match on it.
    pub istio_version: Option<String>,
    /// Labels of the pod as the downward API writes them, read again for each connection.
    pub labels_file: Option<PathBuf>,
}

impl NodeIdentity {
    /// The node's id: `sidecar~ADDRESS~POD.NAMESPACE~DOMAIN`.
    pub fn node_id(&self) -> String {
        let NodeIdentity { pod, namespace, .. } = self;
        format!("sidecar~{ADDRESS}~{pod}-outrigger.{namespace}~{namespace}.svc.cluster.local")
    }

    /// Labels of the pod; none where no file is named. A file that cannot be read is an error:
    /// without labels, istiod would withdraw the policies for this workload.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, String>, XdsError> {
        let Some(path) = &self.labels_file else { return Ok(BTreeMap::new()) };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(parse_labels(&text)),
            Err(error) => Err(XdsError::Labels { path: path.clone(), reason: error.to_string() }),
        }
    }

    pub(crate) fn node(&self, labels: &BTreeMap<String, String>) -> Node {
        let labels = to_struct(labels.iter().map(|(name, value)| (name.as_str(), text(value))));
        let mut metadata = vec![
            ("NAMESPACE", text(&self.namespace)),
            ("CLUSTER_ID", text(&self.cluster_id)),
            ("LABELS", nested(labels)),
            ("PROXY_CONFIG", nested(to_struct([]))),
        ];
        if let Some(version) = &self.istio_version {
            metadata.push(("ISTIO_VERSION", text(version)));
        }
        Node {
            id: self.node_id(),
            cluster: format!("outrigger.{}", self.namespace),
            metadata: Some(to_struct(metadata)),
            user_agent_name: "outrigger".to_owned(),
            user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Reads the labels that the downward API writes: a line `key="value"` for each, with the value
/// quoted as Go quotes strings.
pub fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let label = |line: &str| {
        let (name, quoted) = line.trim().split_once('=')?;
        // A label's value holds nothing that Go and JSON quote differently.
        let value = serde_json::from_str(quoted).unwrap_or_else(|_| quoted.to_owned());
        (!name.is_empty()).then(|| (name.to_owned(), value))
    };
    text.lines().filter_map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::values::to_json;
    use serde_json::json;

    fn identity() -> NodeIdentity {
        NodeIdentity {
            pod: "reviews-1".to_owned(),
            namespace: "bookinfo".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            istio_version: None,
            labels_file: None,
        }
    }

    #[test]
    fn labels_are_read_as_the_downward_api_writes_them() {
        let labels = parse_labels("app=\"reviews\"\nversion=\"v\\\"1\"\n\nbare=x\n=\"no\"\n");
        let expected = [("app", "reviews"), ("version", "v\"1"), ("bare", "x")];
        assert_eq!(labels, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn the_node_is_one_that_istiod_takes_and_envoys_is_another() {
        let node = identity().node(&parse_labels("app=\"reviews\""));
        let parts: Vec<&str> = node.id.split('~').collect();
        let domain = "bookinfo.svc.cluster.local";
        assert_eq!(parts, ["sidecar", "127.0.0.6", "reviews-1-outrigger.bookinfo", domain]);
        let expected = json!({
            "NAMESPACE": "bookinfo",
            "CLUSTER_ID": "Kubernetes",
            "LABELS": {"app": "reviews"},
            "PROXY_CONFIG": {},
        });
        assert_eq!(node.metadata.as_ref().and_then(to_json), Some(expected));
    }
}
