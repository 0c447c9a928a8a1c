//! The breakers of endpoints. Each endpoint has one, which opens after failures in a row; an open one
//! ejects its endpoint. How many may be open at a time is decided by the guard's `Ejections`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_guard::{Breaker, BreakerRules};

use crate::guard::{Ejections, NamedBreaker};
use crate::upstream::address::EndpointAddress;
use crate::upstream::settings::EjectionSettings;

/// The window of the counts that operators see. Failures in a row are counted without a window.
const WINDOW: Duration = Duration::from_secs(10);

/// The breakers of all endpoints.
#[derive(Debug)]
pub(crate) struct EndpointBreakers {
    rules: BreakerRules,
    ejections: Arc<Ejections>,
    by_address: ArcSwap<HashMap<EndpointAddress, Arc<NamedBreaker>>>,
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

    /// Makes breakers for new endpoints and drops those of endpoints that are gone.
    pub(crate) fn follow<'a>(&self, addresses: impl Iterator<Item = &'a EndpointAddress>) {
        let before = self.by_address.load();
        let addresses: Vec<&EndpointAddress> = addresses.collect();
        // The only endpoint is never ejected, so that its requests need not be counted.
        let several = addresses.len() > 1;
        let now: HashMap<EndpointAddress, Arc<NamedBreaker>> = addresses
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

    fn breaker(&self, address: &EndpointAddress) -> Arc<NamedBreaker> {
        Arc::new(NamedBreaker {
            name: address.to_string().into(),
            machine: Breaker::new(self.rules),
            ejections: Some(Arc::clone(&self.ejections)),
        })
    }

    pub(crate) fn of(&self, address: &EndpointAddress) -> Option<Arc<NamedBreaker>> {
        self.by_address.load().get(address).cloned()
    }

    /// Whether an endpoint is ejected at `now`, by the guard's clock.
    pub(crate) fn rejects(&self, address: &EndpointAddress, now: Duration) -> bool {
        self.by_address
            .load()
            .get(address)
            .is_some_and(|breaker| breaker.machine.rejects(now).is_some())
    }

    /// The number of endpoints that are ejected. Takes no lock.
    pub(crate) fn ejected(&self) -> usize {
        self.ejections.count()
    }
}
