//! Which endpoint a request goes to. Endpoints are found by DNS and checked actively here; what
//! requests themselves show about an endpoint is in `ejection`, the order of candidates in
//! `balance`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_guard::State;
use tokio::task::JoinSet;

use crate::guard::{Pending, RevalidationWatch};
use crate::upstream::address::EndpointAddress;
use crate::upstream::balance::{Endpoint, EndpointSet};
use crate::upstream::connect::Connector;
use crate::upstream::ejection::EndpointBreakers;
use crate::upstream::health::HealthCheck;
use crate::upstream::settings::{Address, Balance, UpstreamSettings};

/// Names are resolved again this often.
const DNS_REFRESH: Duration = Duration::from_secs(30);
/// How often another endpoint is chosen because the one chosen has just got its probe.
const CHOICES_MAX: usize = 3;

/// The endpoints of the upstream.
pub(crate) struct Endpoints {
    /// As configured; names may resolve to several addresses.
    configured: Vec<Address>,
    balance: Balance,
    known: ArcSwap<EndpointSet>,
    check: Option<Arc<HealthCheck>>,
    /// Time between two checks.
    interval: Duration,
    turn: AtomicUsize,
    /// Turns where health does not count. Apart from the others, so that a request that uses both
    /// does not skip every second endpoint.
    any_turn: AtomicUsize,
    breakers: Option<EndpointBreakers>,
    /// With a smaller percentage of usable endpoints than this, all are used.
    panic_percent: usize,
    /// Endpoints that fail their health checks.
    unhealthy: AtomicUsize,
    watch: Arc<RevalidationWatch>,
}

/// The endpoint for a request, with the ticket of its breaker.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) address: EndpointAddress,
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
    /// IP address and port, or the path of a Unix socket.
    pub address: String,
    /// Whether its health checks succeed; true without health checks.
    pub healthy: bool,
    /// Whether it is left out because requests to it failed.
    pub ejected: bool,
    /// How long it is left out, milliseconds.
    pub ejected_ms_left: u64,
}

impl Endpoints {
    /// Sets up the endpoints; resolves them once, so that the first request finds them.
    pub(crate) async fn start(
        settings: &UpstreamSettings,
        connector: &Arc<Connector>,
        watch: &Arc<RevalidationWatch>,
    ) -> Arc<Self> {
        let check = settings.health_check.as_ref();
        let ejection = settings.ejection.enabled.then_some(&settings.ejection);
        let endpoints = Arc::new(Endpoints {
            configured: settings.endpoints.clone(),
            balance: settings.balance,
            known: ArcSwap::from_pointee(EndpointSet::new(BTreeSet::new(), settings.balance, &[])),
            check: check.map(|check| Arc::new(HealthCheck::new(settings, check, connector))),
            interval: check.map_or(DNS_REFRESH, |check| Duration::from_millis(check.interval_ms)),
            turn: AtomicUsize::new(0),
            any_turn: AtomicUsize::new(0),
            breakers: ejection.map(EndpointBreakers::new),
            panic_percent: ejection.map_or(0, |ejection| usize::from(ejection.panic_percent.0)),
            unhealthy: AtomicUsize::new(0),
            watch: Arc::clone(watch),
        });
        if !endpoints.configured.is_empty() {
            endpoints.update().await;
        }
        endpoints
    }

    /// Keeps resolving and checking, for ever. Runs beside the data path.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let mut since_dns = Duration::ZERO;
        loop {
            self.check_all().await;
            tokio::time::sleep(self.interval).await;
            since_dns += self.interval;
            if since_dns >= DNS_REFRESH {
                since_dns = Duration::ZERO;
                self.update().await;
            }
        }
    }

    /// Resolves the endpoints again. Without any answer, those that are known stay.
    async fn update(&self) {
        let found = resolve(&self.configured).await;
        if found.is_empty() {
            tracing::warn!(error = "no endpoint resolves", "upstream endpoints were not updated");
            return;
        }
        let before = self.known.load();
        if !before.all().iter().map(|endpoint| &endpoint.address).eq(&found) {
            let known = EndpointSet::new(found, self.balance, before.all());
            self.known.store(Arc::new(known));
        }
        let known = self.known.load();
        if let Some(breakers) = &self.breakers {
            breakers.follow(known.all().iter().map(|endpoint| &endpoint.address));
        }
        self.count_unhealthy(&known);
    }

    /// Checks all endpoints at once, and logs which begin or cease to fail.
    async fn check_all(&self) {
        let Some(check) = &self.check else { return };
        let known = self.known.load_full();
        let mut checks = JoinSet::new();
        for endpoint in known.all() {
            let Endpoint { address, health } = endpoint.clone();
            let check = Arc::clone(check);
            checks.spawn(async move {
                let changed = check.run(&address, &health).await;
                let endpoint = address.to_string();
                match changed {
                    Some(Ok(())) => {
                        tracing::warn!(endpoint, healthy = true, "endpoint health changed");
                    }
                    Some(Err(reason)) => {
                        tracing::warn!(endpoint, healthy = false, %reason, "endpoint health changed");
                    }
                    None => {}
                }
            });
        }
        while checks.join_next().await.is_some() {}
        self.count_unhealthy(&known);
    }

    fn count_unhealthy(&self, known: &EndpointSet) {
        let unhealthy = known.all().iter().filter(|endpoint| !endpoint.health.is_healthy()).count();
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
    }

    /// The endpoint for a key, other than those `tried`: one that is healthy and not left out.
    /// Where too few are, all count as usable: a wrong check must not take a working upstream down,
    /// and the few that are left must not be overrun.
    pub(crate) fn choose(&self, key: u128, tried: &[EndpointAddress]) -> Option<Chosen> {
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
        let known = self.known.load();
        let any = known.in_turn(&self.any_turn, |endpoint| !tried.contains(&endpoint.address))?;
        Some(Chosen { address: any.address.clone(), pending: None })
    }

    fn select(&self, key: u128, not: &[EndpointAddress]) -> Option<EndpointAddress> {
        let all_count = self.is_panicking();
        let now = self.watch.now();
        let ejected = |address: &EndpointAddress| {
            self.breakers
                .as_ref()
                .is_some_and(|breakers| breakers.ejected() > 0 && breakers.rejects(address, now))
        };
        let fits = |endpoint: &Endpoint| {
            let usable =
                || all_count || endpoint.health.is_healthy() && !ejected(&endpoint.address);
            !not.contains(&endpoint.address) && usable()
        };
        let known = self.known.load();
        known.select(key, &self.turn, fits).map(|endpoint| endpoint.address.clone())
    }

    /// Whether so few endpoints are usable that all have to be used.
    fn is_panicking(&self) -> bool {
        let ejected = self.breakers.as_ref().map_or(0, EndpointBreakers::ejected);
        if ejected == 0 && self.unhealthy.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let (known, now) = (self.known.load(), self.watch.now());
        let usable = |endpoint: &&Endpoint| {
            let breakers = self.breakers.as_ref();
            endpoint.health.is_healthy()
                && !breakers.is_some_and(|all| all.rejects(&endpoint.address, now))
        };
        known.all().iter().filter(usable).count() * 100 < self.panic_percent * known.all().len()
    }

    /// All endpoints with their state.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let now = self.watch.now();
        let state = |Endpoint { address, health }: &Endpoint| {
            let breaker = self.breakers.as_ref().and_then(|all| all.of(address));
            let status = breaker.map(|breaker| breaker.machine.status(now));
            let left = status.map_or(Duration::ZERO, |status| status.open_left);
            EndpointState {
                address: address.to_string(),
                healthy: health.is_healthy(),
                ejected: status.is_some_and(|status| status.state != State::Closed),
                ejected_ms_left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            }
        };
        self.known.load().all().iter().map(state).collect()
    }
}

/// Resolves names; an address needs no resolver. A name that does not resolve is logged and left
/// out.
async fn resolve(configured: &[Address]) -> BTreeSet<EndpointAddress> {
    let mut found = BTreeSet::new();
    for address in configured {
        match address {
            Address::Unix(path) => {
                found.insert(EndpointAddress::Unix(path.as_path().into()));
            }
            Address::Tcp { host, port } => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                match tokio::net::lookup_host((bare, *port)).await {
                    Ok(all) => found.extend(all.map(EndpointAddress::Tcp)),
                    Err(error) => {
                        tracing::warn!(%address, %error, "cannot resolve an upstream endpoint");
                    }
                }
            }
        }
    }
    found
}
