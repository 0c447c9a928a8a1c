//! Which endpoint a request goes to: discovery by DNS, active health checks and selection, all by
//! `pingora-load-balancing`; what requests themselves tell about an endpoint is in `ejection`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use outrigger_guard::State;
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector as HttpConnector;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::{HttpHealthCheck, TcpHealthCheck};
use pingora_load_balancing::selection::{Consistent, RoundRobin};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::guard::{Pending, RevalidationWatch};
use crate::upstream::connect::{alpn, connector_options};
use crate::upstream::ejection::EndpointBreakers;
use crate::upstream::settings::{
    Address, Balance, HealthCheckSettings, Protocol, UpstreamSettings,
};

/// Names are resolved again this often.
const DNS_REFRESH: Duration = Duration::from_secs(30);
/// Candidates that are looked at before giving up.
const CANDIDATES_MAX: usize = 64;
/// How often another endpoint is chosen because the one chosen has just got its probe.
const CHOICES_MAX: usize = 3;

enum Selector {
    RoundRobin(LoadBalancer<RoundRobin>),
    Consistent(LoadBalancer<Consistent>),
}

/// The endpoints of the upstream.
pub(crate) struct Endpoints {
    selector: Selector,
    interval: Duration,
    turn: AtomicUsize,
    breakers: Option<EndpointBreakers>,
    /// With a smaller share of usable endpoints than this, all are used.
    panic_percent: usize,
    /// Endpoints that fail their health checks.
    unhealthy: AtomicUsize,
    health: Mutex<HashMap<String, bool>>,
    watch: Arc<RevalidationWatch>,
}

/// The endpoint for a request, with the ticket of its breaker.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) address: SocketAddr,
    pub(crate) pending: Option<Pending>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

/// The state of one endpoint, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// Where it is.
    pub address: String,
    /// Whether its health checks succeed; true without health checks.
    pub healthy: bool,
    /// Whether it is left out because requests to it failed.
    pub ejected: bool,
    /// How long it is left out, milliseconds.
    pub ejected_ms_left: u64,
}

/// Resolves names; an address that is one already needs no resolver.
struct Dns {
    addresses: Vec<Address>,
}

#[async_trait]
impl ServiceDiscovery for Dns {
    async fn discover(&self) -> pingora_core::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut found = BTreeSet::new();
        for address in &self.addresses {
            match address {
                Address::Unix(path) => {
                    if let Ok(addr) = std::os::unix::net::SocketAddr::from_pathname(path) {
                        found.insert(backend(SocketAddr::Unix(addr)));
                    }
                }
                Address::Tcp { host, port } => {
                    let bare = host.trim_start_matches('[').trim_end_matches(']');
                    match tokio::net::lookup_host((bare, *port)).await {
                        Ok(all) => found.extend(all.map(|addr| backend(SocketAddr::Inet(addr)))),
                        Err(error) => {
                            tracing::warn!(%address, %error, "cannot resolve an upstream endpoint");
                        }
                    }
                }
            }
        }
        if found.is_empty() {
            // The caller keeps what it had.
            return Err(pingora_core::Error::explain(
                pingora_core::ErrorType::ConnectNoRoute,
                "no endpoint resolves",
            ));
        }
        Ok((found, HashMap::new()))
    }
}

fn backend(addr: SocketAddr) -> Backend {
    Backend { addr, weight: 1, ext: Default::default() }
}

impl Endpoints {
    /// Sets up the endpoints; resolves them once, so that the first request finds them.
    pub(crate) async fn start(
        settings: &UpstreamSettings,
        watch: &Arc<RevalidationWatch>,
    ) -> Arc<Self> {
        let dns = Dns { addresses: settings.endpoints.clone() };
        let mut backends = Backends::new(Box::new(dns));
        if let Some(check) = &settings.health_check {
            backends.set_health_check(health_check(settings, check));
        }
        let selector = match settings.balance {
            Balance::RoundRobin => Selector::RoundRobin(LoadBalancer::from_backends(backends)),
            Balance::ConsistentHash => Selector::Consistent(LoadBalancer::from_backends(backends)),
        };
        let interval = settings
            .health_check
            .as_ref()
            .map_or(DNS_REFRESH, |check| Duration::from_millis(check.interval_ms));
        let ejection = settings.ejection.enabled.then_some(&settings.ejection);
        let endpoints = Arc::new(Endpoints {
            selector,
            interval,
            turn: AtomicUsize::new(0),
            breakers: ejection.map(EndpointBreakers::new),
            panic_percent: ejection.map_or(0, |ejection| usize::from(ejection.panic_percent.0)),
            unhealthy: AtomicUsize::new(0),
            health: Mutex::default(),
            watch: Arc::clone(watch),
        });
        if !settings.endpoints.is_empty() {
            endpoints.update().await;
        }
        endpoints
    }

    /// Keeps resolving and checking, for ever. Runs beside the data path.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let mut since_dns = Duration::ZERO;
        loop {
            self.backends().run_health_check(true).await;
            self.note_health();
            tokio::time::sleep(self.interval).await;
            since_dns += self.interval;
            if since_dns >= DNS_REFRESH {
                since_dns = Duration::ZERO;
                self.update().await;
            }
        }
    }

    async fn update(&self) {
        let result = match &self.selector {
            Selector::RoundRobin(lb) => lb.update().await,
            Selector::Consistent(lb) => lb.update().await,
        };
        if let Err(error) = result {
            tracing::warn!(%error, "upstream endpoints were not updated");
        }
        if let Some(breakers) = &self.breakers {
            breakers.follow(self.backends().get_backend().iter().map(|backend| &backend.addr));
        }
        self.note_health();
    }

    /// Counts who fails its health checks, and logs who begins or ceases to.
    fn note_health(&self) {
        let backends = self.backends();
        let mut before = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut now = HashMap::new();
        for backend in backends.get_backend().iter() {
            let (endpoint, healthy) = (backend.addr.to_string(), backends.ready(backend));
            let was = before.get(&endpoint).copied().unwrap_or(true);
            if was != healthy {
                tracing::warn!(endpoint, healthy, "endpoint health changed");
            }
            now.insert(endpoint, healthy);
        }
        let unhealthy = now.values().filter(|healthy| !**healthy).count();
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
        *before = now;
    }

    fn backends(&self) -> &Backends {
        match &self.selector {
            Selector::RoundRobin(lb) => lb.backends(),
            Selector::Consistent(lb) => lb.backends(),
        }
    }

    /// The endpoint for a key, other than those `tried`: one that is healthy and not left out.
    /// Where too few are, all count as usable: a wrong check must not take a working upstream down,
    /// and the few that are left must not be overrun.
    pub(crate) fn choose(&self, key: u128, tried: &[SocketAddr]) -> Option<Chosen> {
        let mut busy = tried.to_vec();
        for _ in 0..CHOICES_MAX {
            let Some(address) = self.select(key, &busy) else { break };
            let Some(breaker) = self.breakers.as_ref().and_then(|all| all.of(&address)) else {
                return Some(Chosen { address, pending: None });
            };
            match breaker.admit(&self.watch) {
                Ok(pending) => return Some(Chosen { address, pending: Some(pending) }),
                Err(_) if self.is_panicking() => return Some(Chosen { address, pending: None }),
                // Its probe has just been given to another request.
                Err(_) => busy.push(address),
            }
        }
        let address = self.any_but(tried)?;
        Some(Chosen { address, pending: None })
    }

    fn select(&self, key: u128, not: &[SocketAddr]) -> Option<SocketAddr> {
        let all_count = self.is_panicking();
        let now = self.watch.now();
        let ejected = |address: &SocketAddr| {
            self.breakers
                .as_ref()
                .is_some_and(|breakers| breakers.ejected() > 0 && breakers.rejects(address, now))
        };
        let fits = |backend: &Backend, healthy: bool| {
            !not.contains(&backend.addr) && (all_count || healthy && !ejected(&backend.addr))
        };
        let key = key.to_le_bytes();
        let found = match &self.selector {
            Selector::RoundRobin(lb) => lb.select_with(&key, CANDIDATES_MAX, fits),
            Selector::Consistent(lb) => lb.select_with(&key, CANDIDATES_MAX, fits),
        };
        found.map(|backend| backend.addr)
    }

    /// Whether so few endpoints are usable that all have to be used.
    fn is_panicking(&self) -> bool {
        let ejected = self.breakers.as_ref().map_or(0, EndpointBreakers::ejected);
        if ejected == 0 && self.unhealthy.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let (backends, now) = (self.backends(), self.watch.now());
        let all = backends.get_backend();
        let usable = |backend: &&Backend| {
            let breakers = self.breakers.as_ref();
            backends.ready(backend) && !breakers.is_some_and(|all| all.rejects(&backend.addr, now))
        };
        all.iter().filter(usable).count() * 100 < self.panic_percent * all.len()
    }

    /// One endpoint after the other, whatever its health check says.
    fn any_but(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let all = self.backends().get_backend();
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
        let rotated = all.iter().skip(start).chain(all.iter().take(start));
        rotated.map(|backend| &backend.addr).find(|addr| !tried.contains(addr)).cloned()
    }

    /// All endpoints with their state.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let (backends, now) = (self.backends(), self.watch.now());
        backends
            .get_backend()
            .iter()
            .map(|backend| {
                let breaker = self.breakers.as_ref().and_then(|all| all.of(&backend.addr));
                let status = breaker.map(|breaker| breaker.machine.status(now));
                let left = status.map_or(Duration::ZERO, |status| status.open_left);
                EndpointState {
                    address: backend.addr.to_string(),
                    healthy: backends.ready(backend),
                    ejected: status.is_some_and(|status| status.state != State::Closed),
                    ejected_ms_left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                }
            })
            .collect()
    }
}

fn health_check(
    settings: &UpstreamSettings,
    check: &HealthCheckSettings,
) -> Box<dyn pingora_load_balancing::health_check::HealthCheck + Send + Sync> {
    let timeout = Some(Duration::from_millis(check.timeout_ms));
    let sni = settings.tls.as_ref().map(|tls| tls.server_name.clone());
    if let Some(path) = &check.path {
        let mut http: HttpHealthCheck = HttpHealthCheck::new(&settings.authority, sni.is_some());
        http.consecutive_success = check.healthy_after;
        http.consecutive_failure = check.unhealthy_after;
        http.peer_template.options.connection_timeout = timeout;
        http.peer_template.options.read_timeout = timeout;
        // With TLS, HTTP/1.1 is as good a sign of life as HTTP/2.
        let http2 = settings.protocol == Protocol::Http2;
        http.peer_template.options.alpn =
            alpn(if http2 { Protocol::Http2 } else { Protocol::Http1 });
        http.set_connector(HttpConnector::new(connector_options(settings)));
        if let Some(sni) = sni {
            http.peer_template.sni = sni;
        }
        // HTTP/2 takes the authority from the URI; a Host beside it would be one too many.
        let origin = if http2 { format!("http://{}", settings.authority) } else { String::new() };
        if http2 {
            http.req.remove_header("host");
        }
        if let Ok(uri) = format!("{origin}{path}").parse() {
            http.req.set_uri(uri);
        }
        return Box::new(http);
    }
    let mut tcp = match &sni {
        Some(sni) => TcpHealthCheck::new_tls(sni),
        None => TcpHealthCheck::new(),
    };
    tcp.consecutive_success = check.healthy_after;
    tcp.consecutive_failure = check.unhealthy_after;
    tcp.peer_template.options.connection_timeout = timeout;
    tcp.set_connector(TransportConnector::new(connector_options(settings)));
    tcp
}
