//! Who a client says it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::proto::{self, json_of_struct};

const TYPES: [&str; 5] = ["sidecar", "router", "waypoint", "ztunnel", "agentgateway"];

/// A node id that passed istiod's checks, with its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The id as sent.
    pub id: String,
    /// `sidecar`, `router` and so on.
    pub kind: String,
    /// From the metadata, else from the id.
    pub namespace: String,
    /// The metadata that the client sent, as JSON.
    pub metadata: Value,
    /// The metadata's `LABELS`: where istiod finds no pod for the id, they
    /// decide which workload selectors match.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Parses a node, or says what istiod says about it.
    pub fn parse(node: &proto::Node) -> Result<Self, String> {
        let metadata = node.metadata.as_ref().map_or(Value::Null, json_of_struct);
        let parts: Vec<_> = node.id.split('~').collect();
        let &[kind, ip, _, domain] = parts.as_slice() else {
            return Err(format!("missing parts in the service node {:?}", node.id));
        };
        if !TYPES.contains(&kind) {
            return Err(format!("invalid node type (valid types: {TYPES:?}) in {:?}", node.id));
        }
        let listed = metadata["INSTANCE_IPS"].as_str().unwrap_or(ip);
        if !listed.split(',').any(|ip| ip.parse::<IpAddr>().is_ok()) {
            return Err(format!("no valid IP address in the service node {:?}", node.id));
        }
        let named = metadata["NAMESPACE"].as_str().filter(|name| !name.is_empty());
        let namespace = named.or_else(|| domain.split('.').next()).unwrap_or_default();
        let labels = metadata["LABELS"].as_object().into_iter().flatten();
        let labels =
            labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        Ok(Self {
            id: node.id.clone(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            labels,
            metadata,
        })
    }

    /// A metadata field that is text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.metadata[field].as_str()
    }
}
