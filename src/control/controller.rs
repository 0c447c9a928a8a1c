//! Folding the documents of several sources and publishing the result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_diagnostic::Diagnostic;
use outrigger_policy::check::check;
use outrigger_policy::compile::compile;
use outrigger_policy::fold::fold;
use outrigger_policy::{Document, Snapshot};
use parking_lot::Mutex;

/// A source of policy, the most general first. Later ones replace routes of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// For the whole mesh.
    Mesh,
    /// For the namespace of this workload.
    Namespace,
    /// For the pods of this workload.
    Workload,
    /// A file beside this process.
    File,
}

/// The policy in force, and whether newer documents were refused.
#[derive(Clone, Debug)]
pub struct Status {
    /// Version of the policy in force.
    pub version: String,
    /// Sources of the policy in force.
    pub sources: Vec<String>,
    /// When it came into force.
    pub since: SystemTime,
    /// Why the newest document of a source was refused; `None` if the newest of each is in force.
    pub refused: Option<Diagnostic>,
}

struct State {
    layers: BTreeMap<Layer, (String, Document)>,
    /// Why the newest document of a layer is not in force.
    refused: BTreeMap<Layer, Diagnostic>,
    status: Status,
}

type Publish = Box<dyn Fn(Arc<Snapshot>) + Send + Sync>;

/// Folds documents into a snapshot and publishes it.
pub struct Controller {
    state: Mutex<State>,
    publish: Publish,
    report: Box<dyn Fn(bool) + Send + Sync>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("status", &self.status()).finish()
    }
}

impl Controller {
    /// A controller that hands each new snapshot to `publish` and tells `report` whether a
    /// document was accepted.
    pub fn new(
        publish: impl Fn(Arc<Snapshot>) + Send + Sync + 'static,
        report: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        let built_in = Snapshot::built_in();
        let status = Status {
            version: built_in.version().to_owned(),
            sources: Vec::new(),
            since: SystemTime::now(),
            refused: None,
        };
        Controller {
            state: Mutex::new(State { layers: BTreeMap::new(), refused: BTreeMap::new(), status }),
            publish: Box::new(publish),
            report: Box::new(report),
        }
    }

    /// The policy in force, and whether newer documents were refused.
    pub fn status(&self) -> Status {
        self.state.lock().status.clone()
    }

    /// Takes a document of a source, or refuses it whole and keeps what is in force.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn offer(&self, layer: Layer, source: &str, text: &str) -> Result<(), Diagnostic> {
        self.replace(&[(layer, source, Some(text))])
    }

    /// Takes the documents of several layers at once, or refuses them all and keeps what is in
    /// force. A layer without a document is withdrawn.
    ///
    /// # Errors
    /// The first reason to refuse one.
    pub fn replace(&self, layers: &[(Layer, &str, Option<&str>)]) -> Result<(), Diagnostic> {
        let mut checked = Vec::with_capacity(layers.len());
        for (layer, source, text) in layers {
            let document = text.map(|text| check(source, text)).transpose();
            checked.push((*layer, *source, document.map_err(|error| self.refuse(*layer, error))?));
        }
        let mut state = self.state.lock();
        for (layer, source, document) in checked {
            state.refused.remove(&layer);
            match document {
                Some(document) => state.layers.insert(layer, (source.to_owned(), document)),
                None => state.layers.remove(&layer),
            };
        }
        self.put_in_force(&mut state);
        Ok(())
    }

    /// Notes that a document of a layer was refused; what is in force stays.
    pub fn refuse(&self, layer: Layer, error: Diagnostic) -> Diagnostic {
        tracing::error!(%error, "policy refused; the last good one stays in force");
        let mut state = self.state.lock();
        state.refused.insert(layer, error.clone());
        state.status.refused = Some(error.clone());
        (self.report)(false);
        error
    }

    /// Withdraws the document of a layer.
    pub fn withdraw(&self, layer: Layer) {
        // Nothing to check, so that nothing can be refused.
        let _ = self.replace(&[(layer, "", None)]);
    }

    fn put_in_force(&self, state: &mut State) {
        let folded = fold(state.layers.values().map(|(_, document)| document));
        let sources: Vec<String> = state.layers.values().map(|(name, _)| name.clone()).collect();
        let snapshot = Arc::new(compile(&folded, sources.clone()));
        if state.status.version != snapshot.version() || state.status.sources != sources {
            tracing::info!(version = snapshot.version(), ?sources, "policy in force");
        }
        state.status = Status {
            version: snapshot.version().to_owned(),
            sources,
            since: SystemTime::now(),
            refused: state.refused.values().next().cloned(),
        };
        (self.publish)(snapshot);
        (self.report)(state.refused.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> (Controller, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let publish = move |snapshot: Arc<Snapshot>| {
            let names = snapshot.routes().iter().map(|r| r.name.to_string()).collect::<Vec<_>>();
            sink.lock().push(names.join(","));
        };
        (Controller::new(publish, |_| {}), seen)
    }

    #[test]
    fn layers_fold_and_can_be_withdrawn() {
        let (controller, seen) = controller();
        controller.offer(Layer::File, "f", "routes: [{name: b}]").unwrap();
        controller.offer(Layer::Mesh, "m", "routes: [{name: a}]").unwrap();
        controller.withdraw(Layer::File);
        assert_eq!(*seen.lock(), ["b,default", "b,a,default", "a,default"]);
    }

    #[test]
    fn a_bad_document_changes_nothing_and_is_told() {
        let (controller, seen) = controller();
        controller.offer(Layer::File, "f", "routes: [{name: a}]").unwrap();
        let version = controller.status().version;
        assert!(controller.offer(Layer::File, "f", "routes: [{nam: a}]").is_err());
        assert_eq!(controller.status().version, version);
        assert!(controller.status().refused.is_some());
        assert_eq!(seen.lock().len(), 1);
        // What another source brings does not hide it.
        controller.offer(Layer::Mesh, "m", "routes: [{name: b}]").unwrap();
        assert!(controller.status().refused.is_some());
        controller.offer(Layer::File, "f", "routes: [{name: a}]").unwrap();
        assert!(controller.status().refused.is_none());
    }
}
