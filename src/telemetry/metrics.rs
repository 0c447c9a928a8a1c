//! Prometheus metrics, all under the prefix `outrigger_`.
//!
//! Handles that the data path touches are plain atomic counters, resolved beforehand; histograms,
//! which take a lock, are fed only where the upstream was asked.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use strum::EnumCount;

use crate::guard::GuardMetrics;
use crate::labels::{CauseLabel, PurgeLabels, RequestLabels, ResultLabel, RouteLabel, Word};
use crate::miss::MissCause;
use crate::outcome::Outcome;

/// The counters of one route.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    outcomes: [Counter; Outcome::COUNT],
    /// Bytes of bodies sent from the store.
    pub stored_bytes: Counter,
}

impl RouteMetrics {
    /// Counts a request that ended in this outcome.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome.index()].inc();
    }

    /// Requests so far with an outcome.
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].get()
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    stored_bytes: Family<RouteLabel, Counter>,
    /// Memory tier: lookups that found a usable entry.
    pub memory_hits: Counter,
    /// Memory tier: lookups that found nothing.
    pub memory_misses: Counter,
    /// Memory tier: lookups that found an entry which a purge concerns.
    pub memory_purged: Counter,
    misses: Family<CauseLabel, Counter>,
    /// Responses of the upstream by the decision about storing them.
    pub store: Family<ResultLabel, Counter>,
    /// Upstream requests by result.
    pub upstream: Family<ResultLabel, Counter>,
    /// Time to the response head of the upstream, seconds.
    pub upstream_seconds: Histogram,
    /// Connections opened to the upstream.
    pub upstream_connects: Counter,
    /// Requests sent on a connection that was already open.
    pub upstream_reused: Counter,
    /// Requests that led a fetch which others could join.
    pub coalesce_leaders: Counter,
    /// Requests that joined a running fetch.
    pub coalesce_waiters: Counter,
    /// Waiters released, because what was fetched could not be shared with them.
    pub coalesce_released: Counter,
    /// Waiters that gave up waiting.
    pub coalesce_timeouts: Counter,
    /// Requests that found too many waiters.
    pub coalesce_full: Counter,
    /// Readers that were cut loose, because they held others of the same fetch back.
    pub coalesce_cut: Counter,
    unread: Family<ResultLabel, Counter>,
    resumes: Family<ResultLabel, Counter>,
    /// Purges that took effect in this process.
    pub purges: Family<PurgeLabels, Counter>,
    /// Policy loads by result.
    pub policy_loads: Family<ResultLabel, Counter>,
    /// Whether the newest policy is in force (1) or was refused (0).
    pub policy_in_force: Gauge,
    /// Client connections that are open now.
    pub connections: Gauge,
    /// Client connections accepted since the start.
    pub accepted: Counter,
    /// Client connections closed by a limit, by reason.
    pub closed_by_limit: Family<ResultLabel, Counter>,
    /// Client connections that ended in a protocol error.
    pub protocol_errors: Counter,
    /// What the guard of the upstream does.
    pub guard: GuardMetrics,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Metrics {
            requests: Family::default(),
            stored_bytes: Family::default(),
            memory_hits: Counter::default(),
            memory_misses: Counter::default(),
            memory_purged: Counter::default(),
            misses: Family::default(),
            store: Family::default(),
            upstream: Family::default(),
            upstream_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 17)),
            upstream_connects: Counter::default(),
            upstream_reused: Counter::default(),
            coalesce_leaders: Counter::default(),
            coalesce_waiters: Counter::default(),
            coalesce_released: Counter::default(),
            coalesce_timeouts: Counter::default(),
            coalesce_full: Counter::default(),
            coalesce_cut: Counter::default(),
            unread: Family::default(),
            resumes: Family::default(),
            purges: Family::default(),
            policy_loads: Family::default(),
            policy_in_force: Gauge::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            closed_by_limit: Family::default(),
            protocol_errors: Counter::default(),
            guard: GuardMetrics::default(),
        };
        metrics.policy_in_force.set(1);
        metrics.register(registry);
        Arc::new(metrics)
    }

    fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("requests", "Requests by route and outcome", self.requests.clone());
        let help = "Bytes of bodies served from the store by route";
        r.register("stored_response_bytes", help, self.stored_bytes.clone());
        r.register("memory_hits", "Memory tier: usable entry found", self.memory_hits.clone());
        r.register("memory_misses", "Memory tier: nothing found", self.memory_misses.clone());
        let help = "Memory tier: entry found that a purge had voided";
        r.register("memory_voided", help, self.memory_purged.clone());
        let help = "Requests that the store could have answered and did not, by cause";
        r.register("misses", help, self.misses.clone());
        r.register("store_decisions", "Responses by storing decision", self.store.clone());
        r.register("upstream_requests", "Upstream requests by result", self.upstream.clone());
        let help = "Seconds until the response head of the upstream";
        r.register("upstream_first_byte_seconds", help, self.upstream_seconds.clone());
        let help = "Connections to the upstream opened";
        r.register("upstream_connects", help, self.upstream_connects.clone());
        let help = "Upstream requests on a connection already open";
        r.register("upstream_reused", help, self.upstream_reused.clone());
        let help = "Requests that led a fetch others could join";
        r.register("coalesce_leaders", help, self.coalesce_leaders.clone());
        let help = "Requests that joined a running fetch";
        r.register("coalesce_waiters", help, self.coalesce_waiters.clone());
        let help = "Waiters released because the answer could not be shared";
        r.register("coalesce_released", help, self.coalesce_released.clone());
        let help = "Waiters that waited as long as they may";
        r.register("coalesce_timeouts", help, self.coalesce_timeouts.clone());
        let help = "Requests that found as many waiters as there may be";
        r.register("coalesce_full", help, self.coalesce_full.clone());
        let help = "Readers cut loose because they held back others of the same fetch";
        r.register("coalesce_readers_cut", help, self.coalesce_cut.clone());
        let help = "Fetches whose clients had all left, by how they ended";
        r.register("coalesce_unread", help, self.unread.clone());
        let help =
            "Bodies that broke off and whose rest was asked for: went on, changed, or failed";
        r.register("fetch_resumes", help, self.resumes.clone());
        r.register("purges", "Purges applied by matcher and mode", self.purges.clone());
        r.register("policy_loads", "Policy loads by result", self.policy_loads.clone());
        let help = "1 if the newest policy is in force, 0 if it was refused";
        r.register("policy_in_force", help, self.policy_in_force.clone());
        r.register("connections", "Client connections open", self.connections.clone());
        let help = "Client connections accepted";
        r.register("connections_accepted", help, self.accepted.clone());
        let help = "Client connections closed by a limit, by reason";
        r.register("connections_closed", help, self.closed_by_limit.clone());
        let help = "Client connections that ended in a protocol error";
        r.register("protocol_errors", help, self.protocol_errors.clone());
        self.guard.register(r);
    }

    /// The counters of a route. Resolves all labels; not for the data path.
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics {
            outcomes: Outcome::ALL.map(|outcome| {
                let labels =
                    RequestLabels { route: name.to_owned(), outcome: Word(outcome.as_str()) };
                self.requests.get_or_create(&labels).clone()
            }),
            stored_bytes: self
                .stored_bytes
                .get_or_create(&RouteLabel { route: name.to_owned() })
                .clone(),
        }
    }

    /// Counts a miss.
    pub fn count_miss(&self, cause: MissCause) {
        self.misses.get_or_create(&CauseLabel { cause: Word(cause.as_str()) }).inc();
    }

    /// Counts a storing decision.
    pub fn count_store(&self, result: &'static str) {
        self.store.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }

    /// Counts a fetch whose clients had all left, by how it ended: by itself, or at a bound.
    pub fn count_unread(&self, result: &'static str) {
        self.unread.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }

    /// Counts a body that broke off and whose rest was asked for: `resumed`, `changed` if the upstream
    /// had something else, or `failed`.
    pub fn count_resume(&self, result: &'static str) {
        self.resumes.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }

    /// Counts an upstream request.
    pub fn count_upstream(&self, result: &'static str) {
        self.upstream.get_or_create(&ResultLabel { result: Word(result) }).inc();
    }

    /// Counts a policy load and remembers whether the newest policy is in force.
    pub fn count_policy(&self, accepted: bool) {
        let result = Word(if accepted { "accepted" } else { "refused" });
        self.policy_loads.get_or_create(&ResultLabel { result }).inc();
        self.policy_in_force.set(i64::from(accepted));
    }

    /// Counts a purge by what it names and by its mode.
    pub fn count_purge(&self, matcher: &'static str, mode: &'static str) {
        let labels = PurgeLabels { matcher: Word(matcher), mode: Word(mode) };
        self.purges.get_or_create(&labels).inc();
    }

    /// Counts a connection closed by a limit.
    pub fn count_closed(&self, reason: &'static str) {
        self.closed_by_limit.get_or_create(&ResultLabel { result: Word(reason) }).inc();
    }
}
