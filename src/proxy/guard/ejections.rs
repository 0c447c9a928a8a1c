//! How many endpoints may be ejected at a time. Each endpoint has a breaker of its own; here the
//! breakers share a limit, since with most endpoints gone the rest would only be overrun. Which
//! endpoints exist is the upstream's knowledge, and comes from there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_guard::State;
use parking_lot::Mutex;

/// The endpoints that are ejected, and the limit on their share.
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
    /// With no endpoints yet, of which at most this percentage may be ejected.
    pub(crate) fn new(percent_max: u8) -> Self {
        Ejections { percent_max, inner: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// Reserves the right to eject an endpoint; `false` if as many are ejected as may be. The only
    /// endpoint is never ejected, and of two or more at least one may be.
    pub(crate) fn reserve(&self, name: &str) -> bool {
        let mut known = self.inner.lock();
        let all = known.names.len();
        let max = if all < 2 { 0 } else { (all * usize::from(self.percent_max) / 100).max(1) };
        let may = known.names.contains(name) && known.ejected.len() < max;
        if may {
            known.ejected.insert(name.to_owned());
            self.count.store(known.ejected.len(), Ordering::Relaxed);
        }
        may
    }

    /// Notes that the breaker of an endpoint has changed its state.
    pub(crate) fn changed(&self, name: &str, to: State) {
        if to == State::Closed {
            let mut known = self.inner.lock();
            known.ejected.remove(name);
            self.count.store(known.ejected.len(), Ordering::Relaxed);
        }
    }

    /// The number of endpoints that are ejected. Takes no lock.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Replaces the list of endpoints. An ejected one that is no longer listed frees its place.
    pub(crate) fn keep_only(&self, names: BTreeSet<String>) {
        let mut known = self.inner.lock();
        known.ejected.retain(|name| names.contains(name));
        known.names = names;
        self.count.store(known.ejected.len(), Ordering::Relaxed);
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
