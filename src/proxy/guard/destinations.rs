//! Guards of the destinations that Envoy names: the ports of this pod, and the services that it
//! calls. Each has guards of its own, since a failure of one says nothing about another.
//!
//! Destinations are not known beforehand. Guards are made with the first request to one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_policy::{Authority, Side, Snapshot};
use parking_lot::Mutex;

use crate::guard::revalidation::RevalidationWatch;
use crate::guard::routes::Guards;

/// Destinations that are remembered; beyond them the least recently used one is forgotten.
const DESTINATIONS_MAX: usize = 256;

/// Name of a destination: `inbound:PORT`, or `HOST:PORT` on the outbound side.
pub(crate) fn destination_name(side: Side, port: u16, authority: &str) -> String {
    if side == Side::Inbound {
        return format!("inbound:{port}");
    }
    format!("{}:{port}", Authority::of_valid(authority).host())
}

#[derive(Debug)]
struct Remembered {
    guards: Arc<Guards>,
    /// Value of [`Destinations::asked`] when it was last asked for.
    used: AtomicU64,
}

/// The guards of destinations under one policy.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    known: Mutex<HashMap<Box<str>, Remembered>>,
    /// Number of look-ups, which serves as a clock.
    asked: AtomicU64,
}

impl Destinations {
    /// The same destinations under a new policy. Guards whose rules have not changed are kept.
    pub(crate) fn renewed(&self, snapshot: &Snapshot, watch: &Arc<RevalidationWatch>) -> Self {
        let known = self.known.lock();
        let mut renewed = HashMap::with_capacity(known.len());
        for (name, before) in known.iter() {
            let guards = Arc::new(Guards::of(snapshot, &before.guards, watch, Some(name)));
            let used = AtomicU64::new(before.used.load(Ordering::Relaxed));
            renewed.insert(name.clone(), Remembered { guards, used });
        }
        let asked = AtomicU64::new(self.asked.load(Ordering::Relaxed));
        Destinations { known: Mutex::new(renewed), asked }
    }

    /// The guards of a destination, made now if it is new.
    pub(crate) fn of(
        &self,
        destination: &str,
        snapshot: &Snapshot,
        watch: &Arc<RevalidationWatch>,
    ) -> Arc<Guards> {
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
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
        let made = Remembered { guards: Arc::clone(&guards), used: AtomicU64::new(now) };
        known.insert(destination.into(), made);
        guards
    }

    /// The guards of all destinations, ordered by name.
    pub(crate) fn all(&self) -> Vec<Arc<Guards>> {
        let known = self.known.lock();
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
