//! Leaving out endpoints that fail: each has a breaker of its own, and only a share of them may be
//! open at a time. With most endpoints gone the rest would only be overrun.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_guard::{Breaker, BreakerRules, State};
use pingora_core::protocols::l4::socket::SocketAddr;

use crate::guard::NamedBreaker;
use crate::upstream::settings::EjectionSettings;

/// Failures in a row are counted, and they have no window; this is for what operators see.
const WINDOW: Duration = Duration::from_secs(10);

/// Which endpoints are left out, and how many may be.
#[derive(Debug)]
pub(crate) struct Ejections {
    percent_max: u8,
    inner: Mutex<Known>,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<String>,
    ejected: BTreeSet<String>,
}

impl Ejections {
    fn new(percent_max: u8) -> Self {
        Ejections { percent_max, inner: Mutex::default(), count: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes one of the places for endpoints that are left out; `false` if there is none. The only
    /// endpoint is never left out, and of two or more at least one may be.
    pub(crate) fn reserve(&self, name: &str) -> bool {
        let mut known = self.lock();
        let all = known.names.len();
        let max = if all < 2 { 0 } else { (all * usize::from(self.percent_max) / 100).max(1) };
        let may = known.names.contains(name) && known.ejected.len() < max;
        if may {
            known.ejected.insert(name.to_owned());
            self.count.store(known.ejected.len(), Ordering::Relaxed);
        }
        may
    }

    /// An endpoint's breaker has changed its state.
    pub(crate) fn changed(&self, name: &str, to: State) {
        if to == State::Closed {
            let mut known = self.lock();
            known.ejected.remove(name);
            self.count.store(known.ejected.len(), Ordering::Relaxed);
        }
    }

    /// Endpoints that are left out.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn keep_only(&self, names: BTreeSet<String>) {
        let mut known = self.lock();
        known.ejected.retain(|name| names.contains(name));
        known.names = names;
        self.count.store(known.ejected.len(), Ordering::Relaxed);
    }
}

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
            consecutive: Some(settings.consecutive_failures.get()),
            consecutive_for: Duration::ZERO,
            window: WINDOW,
            open_for: Duration::from_millis(settings.eject_for_ms),
            open_max: Duration::from_millis(settings.eject_ms_max),
            probes: 1,
        };
        EndpointBreakers {
            rules,
            ejections: Arc::new(Ejections::new(settings.ejected_percent_max.0)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_share_may_be_left_out() {
        let ejections = Ejections::new(50);
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect();
        ejections.keep_only(names(1));
        assert!(!ejections.reserve("0"), "the only one stays");
        ejections.keep_only(names(5));
        assert!(ejections.reserve("0") && ejections.reserve("1"));
        assert!(!ejections.reserve("2"), "half of five are two");
        assert!(!ejections.reserve("9"), "nobody knows it");
        ejections.changed("0", State::Closed);
        assert!(ejections.reserve("2"));
        ejections.keep_only(names(2));
        assert_eq!(ejections.count(), 1, "who is gone takes no place");
    }
}
