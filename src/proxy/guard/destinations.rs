//! Guards of services that Envoy names: each has its own, since one that fails says nothing about
//! another. There is no list of them beforehand; a guard is made when the first request goes there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use outrigger_policy::Snapshot;

use crate::guard::routes::Guards;
use crate::guard::watch::Watch;

/// More destinations than this share the guards of the upstream. An application calls a few
/// services; many more names are a sign of something that makes them up.
const DESTINATIONS_MAX: usize = 256;

/// The guards of destinations under one policy.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    known: Mutex<HashMap<Box<str>, Arc<Guards>>>,
}

impl Destinations {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Guards>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The same destinations under a new policy; what can be kept of their guards is kept.
    pub(crate) fn renewed(&self, snapshot: &Snapshot, watch: &Arc<Watch>) -> Self {
        let known = self.lock();
        let mut renewed = HashMap::with_capacity(known.len());
        for (name, before) in known.iter() {
            let guards = Guards::of(snapshot, before, watch, Some(name));
            renewed.insert(name.clone(), Arc::new(guards));
        }
        Destinations { known: Mutex::new(renewed) }
    }

    /// The guards of a destination, host and port; `None` if there are too many.
    pub(crate) fn of(
        &self,
        destination: &str,
        snapshot: &Snapshot,
        watch: &Arc<Watch>,
    ) -> Option<Arc<Guards>> {
        let mut known = self.lock();
        if let Some(found) = known.get(destination) {
            return Some(Arc::clone(found));
        }
        if known.len() >= DESTINATIONS_MAX {
            return None;
        }
        let name = Some(destination);
        let made = Arc::new(Guards::of(snapshot, &Guards::default(), watch, name));
        known.insert(destination.into(), Arc::clone(&made));
        Some(made)
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Guards>> {
        let known = self.lock();
        let mut all: Vec<_> = known.iter().collect();
        all.sort_by_key(|(name, _)| (*name).clone());
        all.into_iter().map(|(_, guards)| Arc::clone(guards)).collect()
    }
}
