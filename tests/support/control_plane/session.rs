//! One state-of-the-world stream, answered by the rules that istiod has.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::node::Node;
use super::proto::{
    CDS, DiscoveryRequest, DiscoveryResponse, EDS, Node as NodeMessage, PUSH_ORDER, is_wildcard,
};
use super::server::{ServerState, ServiceAccount};
use super::state::{Connection, ResourceWatch, State};

pub(super) type Answers<T> = mpsc::Sender<Result<T, Status>>;

/// Marks the connection as closed however the stream ends.
pub(super) struct Open {
    shared: Arc<ServerState>,
    pub id: u64,
    pub node: Node,
    pub pushes: mpsc::UnboundedReceiver<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(connection) = self.shared.lock().connection(self.id) {
            connection.open = false;
        }
        self.shared.changed();
    }
}

impl Open {
    /// Checks the node of a first request and notes the connection.
    pub fn new(
        shared: &Arc<ServerState>,
        node: Option<&NodeMessage>,
        identity: Option<&ServiceAccount>,
    ) -> Result<Self, Status> {
        let node = node.filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("missing node information"))?;
        let node = Node::parse(node).map_err(Status::invalid_argument)?;
        if let Some(identity) = identity {
            identity.may_be(&node)?;
        }
        let (push, pushes) = mpsc::unbounded_channel();
        let mut state = shared.lock();
        let id = state.connections.last().map_or(1, |last| last.id + 1);
        let connection =
            Connection { id, node: node.clone(), open: true, watches: [].into(), push };
        state.connections.push(connection);
        drop(state);
        shared.changed();
        Ok(Self { shared: Arc::clone(shared), id, node, pushes })
    }

    /// Waits for a push, and takes those that have gathered for the same one.
    pub async fn pushed(&mut self) {
        // The sender lives in the connection's record, so this cannot end.
        let _ = self.pushes.recv().await;
        while self.pushes.try_recv().is_ok() {}
    }
}

/// Runs a stream to its end.
pub(super) async fn run(
    shared: Arc<ServerState>,
    identity: Option<ServiceAccount>,
    mut requests: Streaming<DiscoveryRequest>,
    answers: Answers<DiscoveryResponse>,
) {
    let Ok(Some(first)) = requests.message().await else { return };
    let mut open = match Open::new(&shared, first.node.as_ref(), identity.as_ref()) {
        Ok(open) => open,
        Err(status) => {
            // Fails when the client has left.
            let _ = answers.send(Err(status)).await;
            return;
        }
    };
    let mut request = Some(first);
    loop {
        shared.speaks().await;
        let responses = match &request {
            Some(request) => respond(&shared, &open, request).into_iter().collect(),
            None => push(&shared, &open),
        };
        shared.changed();
        for response in responses {
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
        }
        request = tokio::select! {
            message = requests.message() => match message {
                Ok(Some(request)) => Some(request),
                _ => return,
            },
            () = open.pushed() => None,
        };
    }
}

/// Every subscribed type, in the order of a push.
fn push(shared: &ServerState, open: &Open) -> Vec<DiscoveryResponse> {
    let mut state = shared.lock();
    let mut responses = Vec::new();
    for type_url in PUSH_ORDER {
        let watch = state.connection(open.id).and_then(|c| c.watches.get(type_url));
        if let Some(names) = watch.map(|watch| watch.names.clone()) {
            responses.push(response(&mut state, open, type_url, &names));
        }
    }
    responses
}

fn respond(
    shared: &ServerState,
    open: &Open,
    request: &DiscoveryRequest,
) -> Option<DiscoveryResponse> {
    let mut state = shared.lock();
    let names = names_to_answer(&mut state, open.id, request)?;
    State::serves(&request.type_url).then(|| response(&mut state, open, &request.type_url, &names))
}

/// Whether a request is answered, and with which names: the heart of istiod's
/// state-of-the-world protocol.
fn names_to_answer(state: &mut State, id: u64, request: &DiscoveryRequest) -> Option<Vec<String>> {
    let type_url = &request.type_url;
    if let Some(error) = &request.error_detail {
        *state.rejects.entry(type_url.clone()).or_default() += 1;
        if let Some(watch) = state.connection(id)?.watches.get_mut(type_url) {
            watch.nacks += 1;
            watch.last_error = error.message.clone();
            watch.version_acked = request.version_info.clone();
        }
        return None;
    }
    let watches = &mut state.connection(id)?.watches;
    if request.resource_names.is_empty() && !is_wildcard(type_url) {
        watches.remove(type_url);
        return None;
    }
    let known = watches.get_mut(type_url).filter(|_| !request.response_nonce.is_empty());
    let Some(watch) = known else {
        let names = request.resource_names.clone();
        let version_acked = request.version_info.clone();
        let watch =
            ResourceWatch { names: names.clone(), version_acked, ..ResourceWatch::default() };
        watches.insert(type_url.clone(), watch);
        if type_url == CDS
            && let Some(endpoints) = watches.get_mut(EDS)
        {
            endpoints.always_respond = true;
        }
        return Some(names);
    };
    if request.response_nonce != watch.nonce_sent {
        return None;
    }
    watch.last_error.clear();
    watch.acks += usize::from(watch.nonce_acked != request.response_nonce);
    watch.nonce_acked = request.response_nonce.clone();
    watch.version_acked = request.version_info.clone();
    let before = std::mem::replace(&mut watch.names, request.resource_names.clone());
    if std::mem::take(&mut watch.always_respond) {
        return Some(request.resource_names.clone());
    }
    // Names that went away need no answer. To new ones, the answer is the new
    // ones alone, which is no longer the state of the world.
    let mut added = request.resource_names.clone();
    added.retain(|name| !before.contains(name));
    (!added.is_empty()).then_some(added)
}

fn response(state: &mut State, open: &Open, type_url: &str, names: &[String]) -> DiscoveryResponse {
    let resources = state.generate(&open.node, type_url, names);
    let resources = resources.into_iter().map(|(_, any)| any).collect();
    let (version, nonce) = (state.version(), state.nonce());
    if let Some(watch) = state.connection(open.id).and_then(|c| c.watches.get_mut(type_url)) {
        watch.responses += 1;
        watch.nonce_sent = nonce.clone();
        watch.version_sent = version.clone();
    }
    DiscoveryResponse { version_info: version, resources, type_url: type_url.to_owned(), nonce }
}
