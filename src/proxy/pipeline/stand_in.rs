//! A stored response in place of an upstream that gave none (RFC 5861 §4), and the pause before
//! that is asked again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use outrigger_coherence::Verdict;
use outrigger_semantics::{RequestDirectives, UnixMillis, reuse};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::coalesce::flight::Resolution;
use crate::coalesce::table::RegisteredFlight;
use crate::pipeline::fill::Context;
use crate::state::Shared;
use crate::upstream::UpstreamError;

impl Context {
    /// No response: a stored one may stand in (RFC 5861 §4).
    pub(super) fn failed(&self, listed: &RegisteredFlight, error: UpstreamError) {
        if error.kind().is_some() {
            self.back_off();
        }
        if !self.serve_stale(listed, error.stand_in()) {
            tracing::debug!(%error, key = %self.key.display(), "fetch failed");
            listed.resolve(Resolution::Failed(Arc::new(error)));
        }
    }

    /// An error of the upstream's: a stored good response may stand in.
    pub(super) fn stale_instead(&self, listed: &RegisteredFlight, status: StatusCode) -> bool {
        let is_error = matches!(status.as_u16(), 500 | 502 | 503 | 504);
        if is_error {
            self.back_off();
        }
        is_error && self.serve_stale(listed, Outcome::StaleIfError)
    }

    /// What is stored is not validated again at once.
    pub(super) fn back_off(&self) {
        let Some(stored) = &self.stored else { return };
        let times = &stored.lifetimes;
        let lifetime = times.fresh_until.millis_since(times.born).max(0).unsigned_abs();
        let (rules, usual) = (self.route.guard.backoff, Duration::from_millis(lifetime));
        self.worker.shared.watch.validation_failed(self.key.digest(), rules, usual);
    }

    fn serve_stale(&self, listed: &RegisteredFlight, outcome: Outcome) -> bool {
        let Some(stored) = &self.stored else { return false };
        let allowed = may_stand_in(&self.worker.shared, stored, &self.directives, self.now());
        if allowed {
            listed.resolve(Resolution::Entry(Arc::clone(stored), outcome));
            listed.finish(true);
        }
        allowed
    }
}

/// Whether a stored response may stand in for a failed upstream (RFC 5861 §4): a whole, good one
/// that no purge has voided.
pub(crate) fn may_stand_in(
    shared: &Shared,
    entry: &Entry,
    directives: &RequestDirectives,
    now: UnixMillis,
) -> bool {
    entry.part.is_none()
        && entry.is_good()
        && shared.log.verdict(entry) != Verdict::Void
        && reuse::may_serve_on_error(&entry.lifetimes, directives, now)
}
