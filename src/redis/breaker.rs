//! The breaker of the shared tier: after some failures in a row nobody asks any more, until a probe
//! of our own has been answered. No client's request is used as a probe.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Whether asking is worth while.
#[derive(Debug)]
pub struct Breaker {
    open: AtomicBool,
    failures: AtomicU32,
    failures_max: u32,
}

impl Breaker {
    /// A breaker that is open until the first probe, and opens again after `failures_max` failures
    /// in a row.
    pub fn new(failures_max: u32) -> Self {
        Breaker {
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            failures_max: failures_max.max(1),
        }
    }

    /// Whether nobody should ask.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes an answer.
    pub fn succeeded(&self) {
        // Written only when it changes: all workers read this.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure; `true` if this one opened the breaker.
    pub fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures >= self.failures_max && self.trip()
    }

    /// Opens at once; `true` if it was closed.
    pub fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::AcqRel)
    }

    /// Closes; `true` if it was open.
    pub fn close(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.open.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_only_a_probe_closes_it() {
        let breaker = Breaker::new(3);
        assert!(breaker.is_open());
        assert!(breaker.close());
        assert!(!breaker.failed());
        assert!(!breaker.failed());
        breaker.succeeded();
        assert!(!breaker.failed());
        assert!(!breaker.failed());
        assert!(breaker.failed());
        assert!(!breaker.failed(), "it opens once");
        breaker.succeeded();
        assert!(breaker.is_open());
        assert!(breaker.close());
        assert!(!breaker.is_open());
    }
}
