//! What the control plane knows: objects, resources for Envoys, and who is
//! connected.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::filters::{EnvoyFilter, extensions};
use super::node::Node;
use super::proto::{Any, CDS, ECDS, EDS, LDS, RDS, is_wildcard};
use super::resources::ResourceSet;

/// A token that clients must bring, and whose it is.
#[derive(Clone, Debug)]
pub struct Token {
    /// What comes after `Bearer`.
    pub value: String,
    /// The namespace of its service account.
    pub namespace: String,
    /// The service account that the token proves.
    pub service_account: String,
}

/// What a connection subscribed to, for one type.
#[derive(Clone, Debug, Default)]
pub struct ResourceWatch {
    /// The names of the last request.
    pub names: Vec<String>,
    /// How many responses were sent.
    pub responses: usize,
    /// The nonce of the last response.
    pub nonce_sent: String,
    /// The nonce of the last response that it took.
    pub nonce_acked: String,
    /// The version of the last response.
    pub version_sent: String,
    /// The version that the client says it uses.
    pub version_acked: String,
    /// How many responses it took.
    pub acks: usize,
    /// How many it refused.
    pub nacks: usize,
    /// Why it refused the last one; empty once it took one.
    pub last_error: String,
    /// Set when the next request is answered even if it asks for nothing new.
    pub always_respond: bool,
}

/// One stream of a client.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Counts streams since the start.
    pub id: u64,
    /// The node that the client named in its first request.
    pub node: Node,
    /// Whether the stream is open.
    pub open: bool,
    /// Subscriptions by type URL.
    pub watches: BTreeMap<String, ResourceWatch>,
    pub(super) push: mpsc::UnboundedSender<()>,
}

impl Connection {
    /// The subscription to a type; an empty one if there is none.
    pub fn watch(&self, type_url: &str) -> ResourceWatch {
        self.watches.get(type_url).cloned().unwrap_or_default()
    }
}

/// Everything behind the lock.
pub(super) struct State {
    pub filters: Vec<EnvoyFilter>,
    pub sets: Vec<(String, ResourceSet)>,
    pub connections: Vec<Connection>,
    pub rejects: BTreeMap<String, u64>,
    pub ready: bool,
    pub token: Option<Token>,
    pub grace: Duration,
    pub streams_refused: u64,
    root: String,
    pushes: u64,
    created: u64,
    nonces: u64,
}

impl State {
    pub fn new() -> Self {
        Self {
            filters: Vec::new(),
            sets: Vec::new(),
            connections: Vec::new(),
            rejects: BTreeMap::new(),
            ready: true,
            token: None,
            grace: Duration::from_secs(10),
            streams_refused: 0,
            root: "istio-system".to_owned(),
            pushes: 1,
            created: 0,
            nonces: 0,
        }
    }

    /// The version that responses carry: of the last push, whatever it changed.
    pub fn version(&self) -> String {
        format!("2026-01-01T00:00:00Z/{}", self.pushes)
    }

    pub fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("{}-{}", self.version(), self.nonces)
    }

    /// Adds objects or replaces those of the same name, which keep their age.
    pub fn apply(&mut self, filters: Vec<EnvoyFilter>) {
        let mut namespaces = Vec::new();
        for mut filter in filters {
            namespaces.push(filter.namespace.clone());
            let same =
                |f: &&mut EnvoyFilter| (&f.namespace, &f.name) == (&filter.namespace, &filter.name);
            if let Some(old) = self.filters.iter_mut().find(same) {
                filter.created = old.created;
                *old = filter;
            } else {
                self.created += 1;
                filter.created = self.created;
                self.filters.push(filter);
            }
        }
        self.push(|root, node| namespaces.iter().any(|ns| ns == root || *ns == node.namespace));
    }

    /// Deletes an object: whether there was one.
    pub fn delete(&mut self, namespace: &str, name: &str) -> bool {
        let before = self.filters.len();
        self.filters.retain(|f| (f.namespace.as_str(), f.name.as_str()) != (namespace, name));
        self.push(|root, node| namespace == root || namespace == node.namespace);
        self.filters.len() < before
    }

    /// A new version, sent to the nodes that it concerns.
    pub fn push(&mut self, concerns: impl Fn(&str, &Node) -> bool) {
        self.pushes += 1;
        for connection in self.connections.iter().filter(|c| c.open) {
            if concerns(&self.root, &connection.node) {
                // Fails when the stream is about to be marked as closed.
                let _ = connection.push.send(());
            }
        }
    }

    pub fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// The resources of a type for a node, of these names.
    pub fn generate(&self, node: &Node, type_url: &str, names: &[String]) -> Vec<(String, Any)> {
        let wanted = |name: &str| names.iter().any(|n| n == name);
        if type_url == ECDS {
            return extensions(&self.filters, node, &self.root, wanted);
        }
        let all = is_wildcard(type_url) && names.is_empty();
        let set = self.sets.iter().rev().find(|(id, _)| node.id.starts_with(id.as_str()));
        let resources = set.and_then(|(_, set)| set.of(type_url)).into_iter().flatten();
        resources.filter(|(name, _)| all || wanted(name)).cloned().collect()
    }

    /// Whether this control plane has a generator for a type.
    pub fn serves(type_url: &str) -> bool {
        matches!(type_url, CDS | EDS | LDS | RDS | ECDS)
    }
}
