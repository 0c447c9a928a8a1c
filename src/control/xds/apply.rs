//! Applying a response: decode it, compare it, and put it in force or refuse it with a reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_diagnostic::Diagnostic;

use crate::controller::{Controller, Layer};
use crate::xds::decode::{RESOURCES, decode};
use crate::xds::proto::DiscoveryResponse;
use crate::xds::state_file::{SavedPolicy, StateFile};
use crate::xds::status::{XdsResult, XdsStatus};

/// Bytes of a refusal's reason at most: it is read in a terminal.
const REASON_BYTES_MAX: usize = 1024;
/// The end of a reason that was cut.
const CUT: &str = "…";

/// Applies responses of one source, for as long as the process lives.
pub(crate) struct Applier {
    controller: Arc<Controller>,
    status: Arc<XdsStatus>,
    state_file: Option<StateFile>,
    in_force: Option<BTreeMap<&'static str, String>>,
    warned: Vec<String>,
    /// Whether the policy in force is on disk.
    kept: bool,
}

impl Applier {
    pub(crate) fn new(
        controller: Arc<Controller>,
        status: Arc<XdsStatus>,
        state_file: Option<StateFile>,
    ) -> Self {
        Applier { controller, status, state_file, in_force: None, warned: Vec::new(), kept: true }
    }

    /// Puts the policy of an earlier run in force. One that cannot be used is logged and left as it
    /// is: istiod will send it again.
    pub(crate) fn restore(&mut self) {
        let Some(state_file) = &self.state_file else { return };
        let kept = match state_file.read() {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "the kept policy cannot be used"),
        };
        let documents: BTreeMap<&'static str, String> = RESOURCES
            .iter()
            .filter_map(|(name, _)| Some((*name, kept.documents.get(*name)?.clone())))
            .collect();
        match self.put_in_force(&documents) {
            Ok(()) => {
                let version = &kept.version;
                tracing::info!(version, "the policy kept from an earlier run is in force");
                self.status.kept(kept.saved(), kept.version);
                self.in_force = Some(documents);
            }
            Err(found) => {
                let reason = told(&found);
                tracing::warn!(reason, "the kept policy cannot be used");
            }
        }
    }

    /// Puts a response in force, or refuses it as a whole.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn apply(&mut self, response: &DiscoveryResponse) -> Result<XdsResult, Diagnostic> {
        let result = self.try_apply(response);
        match &result {
            Ok(result) => self.status.accepted(&response.version_info, *result),
            Err(found) => {
                self.status.rejected(&response.version_info, &told(found));
                // The next response is put in force even if it is as before: that ends the refusal.
                self.in_force = None;
            }
        }
        result
    }

    fn try_apply(&mut self, response: &DiscoveryResponse) -> Result<XdsResult, Diagnostic> {
        let decoded = decode(&response.resources).map_err(|found| {
            let layer = RESOURCES.iter().find(|(name, _)| Some(*name) == found.source.as_deref());
            let layer = layer.map_or(Layer::Mesh, |(_, layer)| *layer);
            self.controller.refuse(layer, found)
        })?;
        // istiod sends the same again at every push: one warning is enough.
        if decoded.warnings != self.warned {
            decoded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            self.warned = decoded.warnings;
        }
        if self.in_force.as_ref() == Some(&decoded.documents) {
            if !self.kept {
                self.keep(&response.version_info, &decoded.documents);
            }
            return Ok(XdsResult::Unchanged);
        }
        self.put_in_force(&decoded.documents)?;
        self.keep(&response.version_info, &decoded.documents);
        self.in_force = Some(decoded.documents);
        Ok(XdsResult::Accepted)
    }

    fn put_in_force(&self, documents: &BTreeMap<&'static str, String>) -> Result<(), Diagnostic> {
        let layers: Vec<(Layer, &str, Option<&str>)> = RESOURCES
            .iter()
            .map(|(name, layer)| (*layer, *name, documents.get(name).map(String::as_str)))
            .collect();
        // The line is one of the JSON made here; the author can find the path.
        self.controller.replace(&layers).map_err(|found| found.on(None))
    }

    /// Writes the policy for the next start. If that fails, the older file is removed: the next start
    /// must have no policy rather than an old one.
    fn keep(&mut self, version: &str, documents: &BTreeMap<&'static str, String>) {
        let Some(state_file) = &self.state_file else { return };
        let written = state_file.write(&SavedPolicy::new(version, documents));
        self.kept = written.is_ok();
        if let Err(error) = written {
            tracing::warn!(%error, "the policy cannot be kept for the next start");
            state_file.forget();
        }
    }
}

/// The text of a refusal, as istiod and operators read it.
pub(crate) fn told(refusal: &Diagnostic) -> String {
    shortened(refusal.to_string())
}

fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX - CUT.len()));
        reason.push_str(CUT);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::decode::tests::policy;
    use serde_json::{Value, json};

    fn response(version: &str, resources: &[(&str, Value)]) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: version.to_owned(),
            resources: resources.iter().map(|(name, value)| policy(name, value)).collect(),
            ..DiscoveryResponse::default()
        }
    }

    fn applier(folder: Option<&std::path::Path>) -> Applier {
        let state_file = folder.map(|folder| StateFile::new(folder.to_owned()));
        let controller = Arc::new(Controller::new(|_| {}, |_| {}));
        Applier::new(controller, Arc::default(), state_file)
    }

    fn named(name: &str) -> Value {
        json!({"routes": [{"name": name}]})
    }

    #[test]
    fn the_same_content_under_a_new_version_changes_nothing() {
        let mut applier = applier(None);
        let first = applier.apply(&response("1", &[("outrigger/mesh", named("a"))]));
        assert_eq!(first, Ok(XdsResult::Accepted));
        let since = applier.controller.status().since;
        let again = applier.apply(&response("2", &[("outrigger/mesh", named("a"))]));
        assert_eq!(again, Ok(XdsResult::Unchanged));
        assert_eq!(applier.controller.status().since, since);
        assert_eq!(applier.status.view().version.as_deref(), Some("2"));
    }

    #[test]
    fn a_bad_resource_refuses_the_whole_response() {
        let mut applier = applier(None);
        applier.apply(&response("1", &[("outrigger/mesh", named("a"))])).unwrap();
        let version = applier.controller.status().version;
        let bad = json!({"routes": [{"name": "b", "cache": {"ttl": {"default": 30}}}]});
        let both = [("outrigger/mesh", named("c")), ("outrigger/workload", bad)];
        let reason = applier.apply(&response("2", &both)).unwrap_err().to_string();
        assert!(
            reason.starts_with("outrigger/workload: routes[0].cache.ttl.default: "),
            "{reason}"
        );
        assert_eq!(applier.controller.status().version, version);
        let view = applier.status.view();
        assert_eq!(view.version.as_deref(), Some("1"));
        assert_eq!(view.last_nack.map(|nack| nack.reason), Some(reason));
        applier.apply(&response("3", &[("outrigger/mesh", named("c"))])).unwrap();
        assert_eq!(applier.status.view().last_nack, None);
    }

    #[test]
    fn what_is_gone_from_a_response_is_gone() {
        let mut applier = applier(None);
        let both = [("outrigger/mesh", named("a")), ("outrigger/workload", named("b"))];
        applier.apply(&response("1", &both)).unwrap();
        assert_eq!(applier.controller.status().sources, ["outrigger/mesh", "outrigger/workload"]);
        applier.apply(&response("2", &[("outrigger/mesh", named("a"))])).unwrap();
        assert_eq!(applier.controller.status().sources, ["outrigger/mesh"]);
        applier.apply(&response("3", &[])).unwrap();
        let built_in = outrigger_policy::Snapshot::built_in();
        assert_eq!(applier.controller.status().version, built_in.version());
    }

    #[test]
    fn keys_that_became_texts_on_their_way_are_read() {
        let ttl = json!({"routes": [{"name": "a", "cache": {"ttl": {"status": {"404": "5s"}}}}]});
        let applied = applier(None).apply(&response("1", &[("outrigger/mesh", ttl)]));
        assert_eq!(applied, Ok(XdsResult::Accepted));
    }

    #[test]
    fn the_last_good_one_comes_back_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = applier(Some(dir.path()));
        before.apply(&response("7", &[("outrigger/workload", named("a"))])).unwrap();
        let mut after = applier(Some(dir.path()));
        after.restore();
        assert_eq!(after.controller.status().version, before.controller.status().version);
        let view = after.status.view();
        assert_eq!(view.version.as_deref(), Some("7"));
        assert!(view.kept_since.is_some());
        let same = after.apply(&response("8", &[("outrigger/workload", named("a"))]));
        assert_eq!(same, Ok(XdsResult::Unchanged));
        assert_eq!(after.status.view().kept_since, None);

        std::fs::write(dir.path().join("policy.json"), "{").unwrap();
        let mut broken = applier(Some(dir.path()));
        broken.restore();
        assert!(broken.controller.status().sources.is_empty());
    }

    #[test]
    fn a_long_reason_is_cut() {
        let cut = shortened("ä".repeat(600));
        assert!(cut.len() <= REASON_BYTES_MAX && cut.ends_with("ä…"), "{cut}");
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
