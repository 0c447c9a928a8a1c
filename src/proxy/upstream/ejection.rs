//! Leaving out endpoints that fail: each has a breaker of its own, and only a share of them may be
//! open at a time. With most endpoints gone the rest would only be overrun.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_guard::{Breaker, BreakerRules};
use pingora_core::protocols::l4::socket::SocketAddr;

use crate::guard::{Ejections, NamedBreaker};
use crate::upstream::settings::EjectionSettings;

/// Failures in a row are counted, and they have no window; this is for what operators see.
const WINDOW: Duration = Duration::from_secs(10);

/// The breakers of all endpoints.
#[derive(Debug)]
pub(crate) struct EndpointBreakers {
    rules: BreakerRules,
    ejections: Arc<Ejections>,
    by_address: ArcSwap<HashMap<SocketAddr, Arc<NamedBreaker>>>,
}

impl EndpointBreakers {
    pub(crate) fn new(settings: &EjectionSettings) -> Self {
        let rules = BreakerRules {
            failure_percent: None,
            slow_percent: None,
            requests_min: 1,
            consecutive: Some(settings.consecutive_failures),
            consecutive_for: Duration::ZERO,
            window: WINDOW,
            open_for: Duration::from_millis(settings.eject_for_ms),
            open_max: Duration::from_millis(settings.eject_ms_max),
            probes: 1,
        };
        EndpointBreakers {
            rules,
            ejections: Arc::new(Ejections::new(settings.ejected_percent_max)),
            by_address: ArcSwap::default(),
        }
    }

    /// Follows the endpoints that are known now.
    pub(crate) fn follow<'a>(&self, addresses: impl Iterator<Item = &'a SocketAddr>) {
        let before = self.by_address.load();
        let addresses: Vec<&SocketAddr> = addresses.collect();
        // The only endpoint is never left out, so that its requests need not be counted.
        let several = addresses.len() > 1;
        let now: HashMap<SocketAddr, Arc<NamedBreaker>> = addresses
            .into_iter()
            .filter(|_| several)
            .map(|address| {
                let kept = before.get(address).cloned();
                (address.clone(), kept.unwrap_or_else(|| self.breaker(address)))
            })
            .collect();
        self.ejections.keep_only(now.keys().map(ToString::to_string).collect());
        self.by_address.store(Arc::new(now));
    }

    fn breaker(&self, address: &SocketAddr) -> Arc<NamedBreaker> {
        Arc::new(NamedBreaker {
            name: address.to_string().into(),
            machine: Breaker::new(self.rules),
            ejections: Some(Arc::clone(&self.ejections)),
        })
    }

    pub(crate) fn of(&self, address: &SocketAddr) -> Option<Arc<NamedBreaker>> {
        self.by_address.load().get(address).cloned()
    }

    /// Whether an endpoint takes no request at `now`.
    pub(crate) fn rejects(&self, address: &SocketAddr, now: Duration) -> bool {
        self.by_address
            .load()
            .get(address)
            .is_some_and(|breaker| breaker.machine.rejects(now).is_some())
    }

    /// Endpoints that are left out.
    pub(crate) fn ejected(&self) -> usize {
        self.ejections.count()
    }
}
