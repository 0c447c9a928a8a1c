//! The state of the process: what all workers share ([`Shared`]), the policy in force with what
//! belongs to it ([`Active`]), and what one worker has for itself (`Worker`).
//!
//! It is put together here once and read everywhere. What is done with it is the part of the
//! modules that own the pieces.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_coherence::{PurgeLog, Verdict};
use outrigger_guard::Force;
use outrigger_policy::{Route, Side, Snapshot};
use outrigger_semantics::NotStored;
use outrigger_store::{Entry, MemoryTier, Tier};
use outrigger_telemetry::{AccessLog, Metrics, RouteMetrics, Tracing};

use crate::clock::Clock;
use crate::coalesce::table::FlightTable;
use crate::coalesce::unread::UnreadFetches;
use crate::coalesce::vary::KnownVary;
use crate::guard::{
    Destinations, GuardState, Guards, RevalidationWatch, RouteGuard, destination_name,
};
use crate::headers::ProxyIdentity;
use crate::matcher::CanonicalUris;
use crate::passed::PassedKeys;
use crate::settings::Settings;
use crate::upstream::{Connector, EndpointState, Endpoints, Upstream};
use crate::uses::Uses;

/// The policy in force, with the metric handles and the guards of its routes.
///
/// A request holds one of these from start to end, so that a reload changes nothing under it.
#[derive(Debug)]
pub struct Active {
    /// The policy itself, compiled.
    pub snapshot: Arc<Snapshot>,
    routes: Vec<RouteMetrics>,
    guards: Guards,
    destinations: Destinations,
    watch: Arc<RevalidationWatch>,
}

impl Active {
    /// Makes the handles and guards of a snapshot. Guards of the policy `before` whose rules have not
    /// changed are kept.
    fn new(
        snapshot: Arc<Snapshot>,
        before: Option<&Active>,
        watch: &Arc<RevalidationWatch>,
    ) -> Self {
        let metrics = &watch.metrics;
        let routes = snapshot.routes().iter().map(|route| metrics.route(&route.name)).collect();
        let none = Guards::default();
        let guards = before.map_or(&none, |before| &before.guards);
        let guards = Guards::of(&snapshot, guards, watch, None);
        let destinations =
            before.map(|before| before.destinations.renewed(&snapshot, watch)).unwrap_or_default();
        Active { snapshot, routes, guards, destinations, watch: Arc::clone(watch) }
    }

    /// The guard of a route of this snapshot: towards the configured upstream or, for a request that
    /// came in on a side of the pod, towards the destination with this port and authority.
    pub(crate) fn guard(
        &self,
        route: &Route,
        destination: Option<((Side, u16), &str)>,
    ) -> Arc<RouteGuard> {
        let of = |((side, port), authority)| {
            let name = destination_name(side, port, authority);
            self.destinations.of(&name, &self.snapshot, &self.watch)
        };
        match destination.map(of) {
            Some(guards) => Arc::clone(guards.of_route(route)),
            None => Arc::clone(self.guards.of_route(route)),
        }
    }

    fn guard_state(&self) -> GuardState {
        let backing_off = self.watch.backing_off();
        let mut state = GuardState { backing_off, ..GuardState::default() };
        self.guards.add_state(&self.watch, &mut state);
        self.destinations.all().iter().for_each(|guards| guards.add_state(&self.watch, &mut state));
        state
    }

    fn force_breakers(&self, name: Option<&str>, force: Option<Force>) -> usize {
        let mut count = self.guards.force(name, force, &self.watch);
        for guards in self.destinations.all() {
            count += guards.force(name, force, &self.watch);
        }
        count
    }

    /// The metric handles of a route of this snapshot.
    pub fn metrics(&self, route: &Route) -> &RouteMetrics {
        &self.routes[route.id]
    }
}

/// The state of the process, shared by all workers and the admin port.
///
/// Everything in it is either immutable or has its own synchronisation, so that an `Arc` of it can
/// be used from any thread.
pub struct Shared {
    pub(crate) settings: Settings,
    pub(crate) policy: ArcSwap<Active>,
    pub(crate) memory: MemoryTier,
    /// Tiers below memory, in the order in which they are asked.
    pub(crate) tiers: Vec<Arc<dyn Tier>>,
    pub(crate) log: PurgeLog,
    pub(crate) metrics: Arc<Metrics>,
    /// Fetches under way that requests can join.
    pub(crate) flights: Arc<FlightTable>,
    /// Fetches under way whose clients have all left.
    pub(crate) unread: Arc<UnreadFetches>,
    /// By which fields the responses of keys vary.
    pub(crate) vary: KnownVary,
    /// Keys whose last response was not storable (hit-for-miss).
    pub(crate) passed: PassedKeys,
    /// How often keys have been asked for, on routes that store only what is.
    pub(crate) uses: Uses,
    pub(crate) identity: ProxyIdentity,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) clock: Clock,
    pub(crate) watch: Arc<RevalidationWatch>,
    /// Number of client connections and tunnels that are open.
    pub(crate) open: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What [`Shared::start`] needs from the composition.
pub struct Parts {
    /// Limits, the upstream and the pod.
    pub settings: Settings,
    /// The policy that is in force from the start.
    pub snapshot: Arc<Snapshot>,
    /// Tiers below memory, in the order in which they are asked.
    pub tiers: Vec<Arc<dyn Tier>>,
    /// The purge log, of this process or in Redis.
    pub log: PurgeLog,
    /// The metrics, registered already.
    pub metrics: Arc<Metrics>,
    /// Export of spans; `None` without tracing.
    pub tracing: Option<Tracing>,
    /// The access log; `None` without one.
    pub access_log: Option<AccessLog>,
    /// The clock of the data path.
    pub clock: Clock,
    /// A token that names this process in `CDN-Loop` (RFC 8586).
    pub instance: String,
}

impl Shared {
    /// Puts the parts together and resolves the endpoints of the upstream.
    ///
    /// # Errors
    /// The certificates that the upstream is verified with cannot be loaded.
    pub async fn start(parts: Parts) -> std::io::Result<Arc<Self>> {
        let connector = Arc::new(Connector::new(&parts.settings.upstream)?);
        let watch = RevalidationWatch::new(Arc::clone(&parts.metrics), parts.clock.clone());
        let endpoints = Endpoints::start(&parts.settings.upstream, &connector, &watch).await;
        let memory = MemoryTier::new(parts.settings.memory_bytes_max, parts.settings.variants_max);
        let uris = CanonicalUris(Arc::clone(&parts.snapshot));
        parts.log.follow_policy(Arc::new(uris), || {});
        let active = Active::new(parts.snapshot, None, &watch);
        let coalesce = &parts.settings.coalesce;
        let unread = UnreadFetches::new(coalesce.unread_max, coalesce.unread_bytes_max.0);
        let shared = Arc::new(Shared {
            settings: parts.settings,
            policy: ArcSwap::from_pointee(active),
            memory,
            tiers: parts.tiers,
            log: parts.log,
            metrics: parts.metrics,
            flights: Arc::default(),
            unread,
            vary: KnownVary::new(),
            passed: PassedKeys::default(),
            uses: Uses::default(),
            identity: ProxyIdentity::new(parts.instance),
            tracing: parts.tracing,
            access_log: parts.access_log,
            endpoints,
            connector,
            clock: parts.clock,
            watch,
            open: AtomicUsize::new(0),
        });
        for tier in &shared.tiers {
            let memory = Arc::downgrade(&shared);
            tier.on_overtaken(Box::new(move |entry| {
                if let Some(shared) = memory.upgrade() {
                    shared.memory.remove_if_same(entry);
                }
            }));
        }
        Ok(shared)
    }

    /// Puts a policy in force. Requests under way keep the one they began with.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let uris = CanonicalUris(Arc::clone(&snapshot));
        let active = Arc::new(Active::new(snapshot, Some(&self.policy.load()), &self.watch));
        self.log.follow_policy(Arc::new(uris), || self.policy.store(active));
    }

    /// The policy in force at this moment.
    pub fn active(&self) -> Arc<Active> {
        self.policy.load_full()
    }

    /// Puts a response that another pod has stored into memory too, unless memory has a better one.
    /// `false` if it was not taken.
    pub(crate) fn remember(&self, entry: &Arc<Entry>) -> bool {
        self.keep_in_memory(entry).is_ok()
    }

    /// Puts a response into memory. What a purge has met is not kept, and gives way.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) fn keep_in_memory(&self, entry: &Arc<Entry>) -> Result<(), NotStored> {
        let valid = |entry: &Entry| self.log.verdict(entry) != Verdict::Purged;
        if !valid(entry) {
            return Err(NotStored::Overtaken);
        }
        self.vary.learn(entry.digest, &entry.variant);
        self.memory.put(entry, self.clock.now(), valid)
    }

    /// The tier in memory, which is always there.
    pub fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    /// The purge log, of this process or in Redis.
    pub fn log(&self) -> &PurgeLog {
        &self.log
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The settings that the process was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clock of the data path.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The exporter of spans, which has to be shut down at the end; `None` without tracing.
    pub fn tracing(&self) -> Option<&Tracing> {
        self.tracing.as_ref()
    }

    /// Number of fetches under way that requests can join.
    pub fn fetches(&self) -> usize {
        self.flights.len()
    }

    /// Number of fetches that go on although their clients have left.
    pub fn unread_fetches(&self) -> usize {
        self.unread.len()
    }

    /// The endpoints of the upstream with their states, for operators.
    pub fn endpoint_states(&self) -> Vec<EndpointState> {
        self.endpoints.states()
    }

    /// The states of all guards, for operators.
    pub fn guard_state(&self) -> GuardState {
        self.policy.load().guard_state()
    }

    /// Forces a state on the circuit breaker of this name, or on all of them; `force: None` returns
    /// them to automatic. Returns the number of breakers that were set.
    pub fn force_breakers(&self, name: Option<&str>, force: Option<Force>) -> usize {
        self.policy.load().force_breakers(name, force)
    }

    /// Background work, which never ends: housekeeping of the memory tier and of other caches with
    /// expiry, DNS and health checks of the upstream.
    pub async fn maintain(self: Arc<Self>) {
        let endpoints = Arc::clone(&self.endpoints);
        let housekeeping = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.memory.run_pending_tasks();
                self.watch.run_pending_tasks();
            }
        };
        tokio::join!(endpoints.maintain(), housekeeping);
    }
}

/// What the requests of one worker thread use.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// It has its own connection pool: sharing one between threads costs CPU
    /// (`src/decisions/001-one-runtime-per-worker.md`).
    pub(crate) upstream: Upstream,
}
