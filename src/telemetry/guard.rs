//! Metrics of the guard: what the breakers, limits and budgets have decided.
//!
//! They are counted only when something is decided against a request or a state changes, so that an
//! ordinary request touches none of them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::labels::{ResultLabel, TransitionLabels, Word};

/// Counters of what the guard of the upstream decides against requests.
#[derive(Debug, Default)]
pub struct GuardMetrics {
    transitions: Family<TransitionLabels, Counter>,
    refused: Family<ResultLabel, Counter>,
    retries: Family<ResultLabel, Counter>,
    refreshes: Family<ResultLabel, Counter>,
}

impl GuardMetrics {
    pub(crate) fn register(&self, r: &mut Registry) {
        let help = "Changes of state of circuit breakers, by breaker, new state and reason";
        r.register("breaker_transitions", help, self.transitions.clone());
        let help = "Requests not sent to the upstream, by reason";
        r.register("guard_refused", help, self.refused.clone());
        let help = "Failed requests, by whether they were sent again or why not";
        r.register("retries", help, self.retries.clone());
        let help = "Refreshes behind a response, by whether they were begun or why not";
        r.register("refreshes", help, self.refreshes.clone());
    }

    /// Counts a change of state.
    pub fn count_transition(&self, breaker: &str, to: &'static str, reason: &'static str) {
        let breaker = breaker.to_owned();
        let labels = TransitionLabels { breaker, to: Word(to), reason: Word(reason) };
        self.transitions.get_or_create(&labels).inc();
    }

    /// Counts a request that was not sent.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ResultLabel { result: Word(reason) }).inc();
    }

    /// Counts a decision about a retry.
    pub fn count_retry(&self, result: &'static str) {
        self.retries.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }

    /// Counts a decision about a refresh.
    pub fn count_refresh(&self, result: &'static str) {
        self.refreshes.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }
}
