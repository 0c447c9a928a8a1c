//! Back-off of revalidations: after a failed validation a key is left alone for a while.
//!
//! One watch serves all guards of the process. It also carries their clock and reports changes of
//! circuit breakers, since a breaker that closes ends the back-off of all keys.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use outrigger_guard::{Backoff, BackoffRules, State, Transition};
use outrigger_telemetry::Metrics;

use crate::clock::Clock;

/// Keys whose back-off is remembered.
const BACKOFF_KEYS_MAX: u64 = 65_536;
/// A key that is not asked for in this time loses its back-off.
const BACKOFF_REMEMBERED: Duration = Duration::from_secs(600);

/// The back-off of keys whose last validation failed, with the clock and the metrics of all guards.
pub(crate) struct RevalidationWatch {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    backoffs: Cache<u128, Backoff>,
}

impl std::fmt::Debug for RevalidationWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevalidationWatch").finish_non_exhaustive()
    }
}

impl RevalidationWatch {
    pub(crate) fn new(metrics: Arc<Metrics>, clock: Clock) -> Arc<Self> {
        let backoffs = Cache::builder()
            .max_capacity(BACKOFF_KEYS_MAX)
            .time_to_idle(BACKOFF_REMEMBERED)
            .build();
        Arc::new(RevalidationWatch { metrics, clock, backoffs })
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Reports a change of a circuit breaker, or of an `endpoint`: one log line, one count. One that
    /// closes ends the back-off of all keys.
    pub(crate) fn transition(&self, breaker: &str, endpoint: Option<&str>, change: &Transition) {
        let label = if endpoint.is_some() { "endpoint" } else { breaker };
        let (to, reason) = (change.to.as_str(), change.reason.as_str());
        self.metrics.guard.count_transition(label, to, reason);
        let Transition { requests, failed, .. } = *change;
        let (from, open_ms) = (change.from.as_str(), change.open_for.map(|time| time.as_millis()));
        match endpoint {
            Some(endpoint) => tracing::warn!(
                endpoint,
                from,
                to,
                reason,
                requests,
                failed,
                open_ms,
                "endpoint ejection changed"
            ),
            None => tracing::warn!(
                breaker,
                from,
                to,
                reason,
                requests,
                failed,
                open_ms,
                "circuit breaker changed"
            ),
        }
        if endpoint.is_none() && change.to == State::Closed {
            // The upstream has recovered, so keys that failed may be validated again.
            self.backoffs.invalidate_all();
        }
    }

    /// Whether a key may be validated now: false during its back-off.
    pub(crate) fn may_validate(&self, key: u128) -> bool {
        self.backoffs.get(&key).is_none_or(|backoff| backoff.is_due(self.now()))
    }

    /// Whether the last validation of a key has failed.
    pub(crate) fn has_failed(&self, key: u128) -> bool {
        self.backoffs.contains_key(&key)
    }

    /// Records that a validation, or the fetch in its place, has failed. `usual` is the time between
    /// two of them when none fails.
    pub(crate) fn validation_failed(&self, key: u128, rules: BackoffRules, usual: Duration) {
        let before = self.backoffs.get(&key);
        let next = Backoff::after_failure(before, rules, usual, self.now(), fastrand::f64());
        self.backoffs.insert(key, next);
    }

    /// Ends the back-off of a key: the upstream has answered for it.
    pub(crate) fn answered(&self, key: u128) {
        // The look is cheaper than an invalidation, which is rarely needed.
        if self.backoffs.contains_key(&key) {
            self.backoffs.invalidate(&key);
        }
    }

    /// The back-off of a key, for operators: failures in a row, and time until the next try.
    pub(crate) fn backoff(&self, key: u128) -> Option<(u32, Duration)> {
        let backoff = self.backoffs.get(&key)?;
        Some((backoff.failures(), backoff.next().saturating_sub(self.now())))
    }

    /// Number of keys with a back-off, approximate.
    pub(crate) fn backing_off(&self) -> u64 {
        self.backoffs.entry_count()
    }

    pub(crate) fn run_pending_tasks(&self) {
        self.backoffs.run_pending_tasks();
    }
}
