//! Guards of what Envoy names: the ports of this pod, and the services that it calls. Each has its
//! own, since one that fails says nothing about another. There is no list of them beforehand; a guard
//! is made when the first request goes there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use outrigger_policy::{Authority, Side, Snapshot};

use crate::guard::routes::Guards;
use crate::guard::watch::Watch;

/// As many destinations are remembered; of more, the one that was used least lately is forgotten.
const DESTINATIONS_MAX: usize = 256;

/// What a destination is called: `inbound:PORT`, or `HOST:PORT` on the outbound side.
pub(crate) fn destination_name(side: Side, port: u16, authority: &str) -> String {
    if side == Side::Inbound {
        return format!("inbound:{port}");
    }
    format!("{}:{port}", Authority::of_valid(authority).host())
}

#[derive(Debug)]
struct Known {
    guards: Arc<Guards>,
    /// When it was asked for last, in questions asked.
    used: AtomicU64,
}

/// The guards of destinations under one policy.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    known: Mutex<HashMap<Box<str>, Known>>,
    asked: AtomicU64,
}

impl Destinations {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Known>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The same destinations under a new policy; what can be kept of their guards is kept.
    pub(crate) fn renewed(&self, snapshot: &Snapshot, watch: &Arc<Watch>) -> Self {
        let known = self.lock();
        let mut renewed = HashMap::with_capacity(known.len());
        for (name, before) in known.iter() {
            let guards = Arc::new(Guards::of(snapshot, &before.guards, watch, Some(name)));
            let used = AtomicU64::new(before.used.load(Ordering::Relaxed));
            renewed.insert(name.clone(), Known { guards, used });
        }
        let asked = AtomicU64::new(self.asked.load(Ordering::Relaxed));
        Destinations { known: Mutex::new(renewed), asked }
    }

    /// The guards of a destination.
    pub(crate) fn of(
        &self,
        destination: &str,
        snapshot: &Snapshot,
        watch: &Arc<Watch>,
    ) -> Arc<Guards> {
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut known = self.lock();
        if let Some(found) = known.get(destination) {
            found.used.store(now, Ordering::Relaxed);
            return Arc::clone(&found.guards);
        }
        if known.len() >= DESTINATIONS_MAX {
            let by_use = known.iter().min_by_key(|(_, known)| known.used.load(Ordering::Relaxed));
            if let Some(oldest) = by_use.map(|(name, _)| name.clone()) {
                known.remove(&oldest);
            }
        }
        let name = Some(destination);
        let guards = Arc::new(Guards::of(snapshot, &Guards::default(), watch, name));
        let made = Known { guards: Arc::clone(&guards), used: AtomicU64::new(now) };
        known.insert(destination.into(), made);
        guards
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Guards>> {
        let known = self.lock();
        let mut all: Vec<_> = known.iter().collect();
        all.sort_by_key(|(name, _)| (*name).clone());
        all.into_iter().map(|(_, known)| Arc::clone(&known.guards)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_one_destination_however_it_is_written() {
        for authority in ["Reviews.svc", "reviews.svc.", "reviews.svc:80", "reviews.svc:9080"] {
            assert_eq!(destination_name(Side::Outbound, 9080, authority), "reviews.svc:9080");
        }
        assert_eq!(destination_name(Side::Outbound, 80, "[::1]:80"), "[::1]:80");
        assert_eq!(destination_name(Side::Inbound, 8080, "whatever"), "inbound:8080");
    }
}
