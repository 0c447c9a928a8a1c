//! The breaker of a target: some failures in a row open it, and an answered probe closes it. No
//! client's request is used as a probe.
//!
//! Requests that were under way together fail together: a hiccup of a few milliseconds is one
//! failure, however many requests waited. So the row must also have lasted for a while.
//!
//! It is not the breaker of `outrigger-guard`, which judges upstreams by the share of failures and
//! probes with requests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Whether a target should be asked. Open means that it should not.
#[derive(Debug)]
pub struct Breaker {
    open: AtomicBool,
    failures: AtomicU32,
    failures_max: u32,
    /// When the row of failures began, microseconds.
    first_at: AtomicU64,
    row_micros_min: u64,
}

impl Breaker {
    /// A breaker that is open until the first probe, and opens again after `failures_max` failures
    /// in a row that lasts for at least `row_min`.
    pub fn new(failures_max: u32, row_min: Duration) -> Self {
        Breaker {
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            failures_max: failures_max.max(1),
            first_at: AtomicU64::new(0),
            row_micros_min: u64::try_from(row_min.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the target should not be asked.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes an operation that was answered.
    pub fn succeeded(&self) {
        // Written only when it changes: all workers read this.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure at `now`, in microseconds of any clock that only goes forward; `true` if this
    /// failure opened the breaker.
    pub fn failed(&self, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures == 1 {
            self.first_at.store(now, Ordering::Relaxed);
        }
        let lasted = now.saturating_sub(self.first_at.load(Ordering::Relaxed));
        failures >= self.failures_max && lasted >= self.row_micros_min && self.trip()
    }

    /// Opens the breaker at once; `true` if it was closed.
    pub fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::AcqRel)
    }

    /// Closes the breaker after an answered probe; `true` if it was open.
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
        let breaker = Breaker::new(3, Duration::from_micros(10));
        assert!(breaker.is_open());
        assert!(breaker.close());
        assert!(!breaker.failed(1));
        assert!(!breaker.failed(12));
        breaker.succeeded();
        assert!(!breaker.failed(20));
        assert!(!breaker.failed(21));
        assert!(!breaker.failed(22), "these were under way together");
        assert!(breaker.failed(30));
        assert!(!breaker.failed(31), "it opens once");
        breaker.succeeded();
        assert!(breaker.is_open());
        assert!(breaker.close());
        assert!(!breaker.is_open());
    }
}
