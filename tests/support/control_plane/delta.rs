//! A delta stream, for the one thing that a client has to know about it: a
//! removed extension is never named in `removed_resources`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Streaming;

use super::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DeltaResource, ECDS};
use super::server::{ServerState, ServiceAccount};
use super::session::{Answers, Open};

/// Runs a stream to its end. It serves ECDS alone.
pub(super) async fn run(
    shared: Arc<ServerState>,
    identity: Option<ServiceAccount>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    answers: Answers<DeltaDiscoveryResponse>,
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
    let mut names = BTreeSet::new();
    let mut due = subscribe(&mut names, first);
    loop {
        shared.speaks().await;
        if due && answers.send(Ok(answer(&shared, &open, &names))).await.is_err() {
            return;
        }
        due = tokio::select! {
            message = requests.message() => match message {
                Ok(Some(request)) => subscribe(&mut names, request),
                _ => return,
            },
            () = open.pushed() => true,
        };
    }
}

/// Takes over the names of a request: whether it brought new ones.
fn subscribe(names: &mut BTreeSet<String>, request: DeltaDiscoveryRequest) -> bool {
    for name in &request.resource_names_unsubscribe {
        names.remove(name);
    }
    let before = names.len();
    names.extend(request.resource_names_subscribe);
    names.len() > before
}

fn answer(shared: &ServerState, open: &Open, names: &BTreeSet<String>) -> DeltaDiscoveryResponse {
    let mut state = shared.lock();
    let names: Vec<_> = names.iter().cloned().collect();
    let (version, nonce) = (state.version(), state.nonce());
    let mut resources = Vec::new();
    for (name, any) in state.generate(&open.node, ECDS, &names) {
        resources.push(DeltaResource { version: version.clone(), resource: Some(any), name });
    }
    DeltaDiscoveryResponse {
        resources,
        system_version_info: version,
        type_url: ECDS.to_owned(),
        nonce,
        removed_resources: Vec::new(),
    }
}
