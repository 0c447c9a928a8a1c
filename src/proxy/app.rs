//! What the data path shares: between all workers, and within one.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use outrigger_coherence::PurgeLog;
use outrigger_guard::Force;
use outrigger_policy::{Route, Side, Snapshot};
use outrigger_store::{MemoryTier, Tier};
use outrigger_telemetry::{AccessLog, Metrics, RouteMetrics, Tracing};

use crate::clock::Clock;
use crate::coalesce::table::FlightTable;
use crate::guard::{Destinations, GuardState, Guards, RouteGuard, Watch, destination_name};
use crate::headers::Identity;
use crate::settings::Settings;
use crate::upstream::{Connector, EndpointState, Endpoints, Upstream};

/// Keys whose last response was not storable: requests for them are not collapsed (hit-for-miss).
const HIT_FOR_MISS_KEYS_MAX: u64 = 65_536;
/// How long such a key is remembered.
const HIT_FOR_MISS_FOR: Duration = Duration::from_secs(60);

/// The policy in force, with the metric handles and guards of its routes.
#[derive(Debug)]
pub struct Active {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    routes: Vec<RouteMetrics>,
    guards: Guards,
    destinations: Destinations,
    watch: Arc<Watch>,
}

impl Active {
    /// Resolves the handles of a snapshot; takes over what can be kept of the guards `before`.
    fn new(snapshot: Arc<Snapshot>, before: Option<&Active>, watch: &Arc<Watch>) -> Self {
        let metrics = &watch.metrics;
        let routes = snapshot.routes().iter().map(|route| metrics.route(&route.name)).collect();
        let none = Guards::default();
        let guards = before.map_or(&none, |before| &before.guards);
        let guards = Guards::of(&snapshot, guards, watch, None);
        let destinations =
            before.map(|before| before.destinations.renewed(&snapshot, watch)).unwrap_or_default();
        Active { snapshot, routes, guards, destinations, watch: Arc::clone(watch) }
    }

    /// The guard of a route of this snapshot, towards the configured upstream, or towards where a
    /// request goes that has come in on a side of the pod, with its authority.
    pub(crate) fn guard(
        &self,
        route: &Route,
        named: Option<((Side, u16), &str)>,
    ) -> Arc<RouteGuard> {
        let of = |((side, port), authority)| {
            let name = destination_name(side, port, authority);
            self.destinations.of(&name, &self.snapshot, &self.watch)
        };
        match named.map(of) {
            Some(guards) => Arc::clone(guards.of_route(route)),
            None => Arc::clone(self.guards.of_route(route)),
        }
    }

    fn guard_state(&self) -> GuardState {
        let backing_off = self.watch.backing_off();
        let mut state = GuardState { backing_off, ..GuardState::default() };
        self.guards.tell(&self.watch, &mut state);
        self.destinations.all().iter().for_each(|guards| guards.tell(&self.watch, &mut state));
        state
    }

    fn force_breakers(&self, name: Option<&str>, force: Option<Force>) -> usize {
        let mut count = self.guards.force(name, force, &self.watch);
        for guards in self.destinations.all() {
            count += guards.force(name, force, &self.watch);
        }
        count
    }

    /// The counters of a route of this snapshot.
    pub fn metrics(&self, route: &Route) -> &RouteMetrics {
        &self.routes[route.id]
    }
}

/// What all workers share.
pub struct Shared {
    pub(crate) settings: Settings,
    pub(crate) policy: ArcSwap<Active>,
    pub(crate) memory: MemoryTier,
    pub(crate) tiers: Vec<Arc<dyn Tier>>,
    pub(crate) log: PurgeLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) flights: Arc<FlightTable>,
    pub(crate) hit_for_miss: Cache<u128, ()>,
    pub(crate) identity: Identity,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) clock: Clock,
    pub(crate) watch: Arc<Watch>,
    /// Client connections and tunnels that are open.
    pub(crate) open: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What the composition hands in.
pub struct Parts {
    /// Limits and the upstream.
    pub settings: Settings,
    /// The policy to begin with.
    pub snapshot: Arc<Snapshot>,
    /// Tiers below memory, in the order in which they are asked.
    pub tiers: Vec<Arc<dyn Tier>>,
    /// The purge log.
    pub log: PurgeLog,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Trace export.
    pub tracing: Option<Tracing>,
    /// Access log.
    pub access_log: Option<AccessLog>,
    /// Clock.
    pub clock: Clock,
    /// A token that names this instance in `CDN-Loop`.
    pub instance: String,
}

impl Shared {
    /// Puts the parts together and resolves the upstream's endpoints.
    ///
    /// # Errors
    /// When the certificates that the upstream is verified with cannot be loaded.
    pub async fn start(parts: Parts) -> std::io::Result<Arc<Self>> {
        let connector = Arc::new(Connector::new(&parts.settings.upstream)?);
        let watch = Watch::new(Arc::clone(&parts.metrics), parts.clock.clone());
        let endpoints = Endpoints::start(&parts.settings.upstream, &watch).await;
        let memory = MemoryTier::new(parts.settings.memory_bytes_max, parts.settings.variants_max);
        let active = Active::new(parts.snapshot, None, &watch);
        Ok(Arc::new(Shared {
            settings: parts.settings,
            policy: ArcSwap::from_pointee(active),
            memory,
            tiers: parts.tiers,
            log: parts.log,
            metrics: parts.metrics,
            flights: Arc::default(),
            hit_for_miss: Cache::builder()
                .max_capacity(HIT_FOR_MISS_KEYS_MAX)
                .time_to_live(HIT_FOR_MISS_FOR)
                .build(),
            identity: Identity::new(parts.instance),
            tracing: parts.tracing,
            access_log: parts.access_log,
            endpoints,
            connector,
            clock: parts.clock,
            watch,
            open: AtomicUsize::new(0),
        }))
    }

    /// Puts a policy in force. Requests under way keep the one they began with.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let before = self.policy.load();
        self.policy.store(Arc::new(Active::new(snapshot, Some(&before), &self.watch)));
    }

    /// The policy in force.
    pub fn active(&self) -> Arc<Active> {
        self.policy.load_full()
    }

    /// The memory tier.
    pub fn memory(&self) -> &MemoryTier {
        &self.memory
    }

    /// The purge log.
    pub fn log(&self) -> &PurgeLog {
        &self.log
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The trace exporter, for its shutdown.
    pub fn tracing(&self) -> Option<&Tracing> {
        self.tracing.as_ref()
    }

    /// Fetches under way that others can join.
    pub fn fetches(&self) -> usize {
        self.flights.len()
    }

    /// The upstream's endpoints with their state.
    pub fn endpoint_states(&self) -> Vec<EndpointState> {
        self.endpoints.states()
    }

    /// The guard of the upstream, for operators.
    pub fn guard_state(&self) -> GuardState {
        self.policy.load().guard_state()
    }

    /// Forces a state on the circuit breaker of this name, or on all; with `None` they judge for
    /// themselves again. Tells how many there were.
    pub fn force_breakers(&self, name: Option<&str>, force: Option<Force>) -> usize {
        self.policy.load().force_breakers(name, force)
    }

    /// Work beside the data path, for ever: housekeeping of the memory tier, health checks.
    pub async fn maintain(self: Arc<Self>) {
        let endpoints = Arc::clone(&self.endpoints);
        let housekeeping = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.memory.run_pending_tasks();
                self.hit_for_miss.run_pending_tasks();
                self.watch.run_pending_tasks();
            }
        };
        tokio::join!(endpoints.maintain(), housekeeping);
    }
}

/// What one worker has for itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstream: Upstream,
}
