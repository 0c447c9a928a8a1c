//! The lease under which a pod may answer from its store where consistency is strong.
//!
//! A writer waits for every live pod to acknowledge, or for its lease to run out. So a pod may serve
//! while its lease runs even if it lags behind the log: the writers of what it has not applied are
//! still waiting for it. For events that were appended while it had no lease no writer waited; it
//! must apply those before it may use a new lease.
//!
//! Time is in milliseconds of a clock that only goes forward. The pod counts from before it asked,
//! the server from when it answered, so that the lease ends earlier for the pod.

use crate::Seq;

/// The lease of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    until: u64,
    need: Seq,
}

impl Lease {
    /// Notes that the log has granted a lease of `length` milliseconds to a question sent at
    /// `asked`; the log stood at `last`.
    pub fn granted(&mut self, asked: u64, length: u64, last: Seq) {
        if asked >= self.until {
            self.need = last;
        }
        self.until = self.until.max(asked.saturating_add(length));
    }

    /// Gives the lease up: the next server may not know it.
    pub fn dropped(&mut self) {
        *self = Lease::default();
    }

    /// Whether the pod may answer from its store.
    pub fn holds(&self, now: u64, applied: Seq) -> bool {
        now < self.until && applied >= self.need
    }

    /// When the lease runs out, milliseconds.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The position that must have been applied before the lease may be used.
    pub fn need(&self) -> Seq {
        self.need
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lease_is_of_use_once_the_pod_has_caught_up() {
        let mut lease = Lease::default();
        assert!(!lease.holds(0, 9));
        lease.granted(100, 50, 7);
        assert!(!lease.holds(100, 6));
        assert!(lease.holds(149, 7));
        assert!(!lease.holds(150, 7));
        // Renewed in time: writers have waited for this pod meanwhile.
        lease.granted(140, 50, 9);
        assert!(lease.holds(189, 7));
        // Renewed too late: no writer has waited.
        lease.granted(200, 50, 12);
        assert!(!lease.holds(201, 9));
        assert!(lease.holds(201, 12));
    }
}
