//! Counts over a sliding window of time.

use std::time::Duration;

const BUCKETS: usize = 10;

/// Requests of a span of time: all, and those that failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.total = self.total.saturating_add(other.total);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// Enough for five centuries, and divided much faster than the 128 bits of [`Duration`].
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A ring of buckets, each a tenth of the window. What is older than the window is forgotten a
/// bucket at a time.
#[derive(Debug)]
pub(crate) struct Window {
    buckets: [Counts; BUCKETS],
    bucket_nanos: u64,
    /// Number of the newest bucket since the beginning of time.
    newest: u64,
}

impl Window {
    pub(crate) fn new(span: Duration) -> Self {
        let bucket_nanos = (nanos(span) / BUCKETS as u64).max(1);
        Window { buckets: [Counts::default(); BUCKETS], bucket_nanos, newest: 0 }
    }

    /// Moves on to `now`. A `now` from before the newest bucket counts into the newest: callers
    /// read the clock before they take the lock.
    fn advance(&mut self, now: Duration) {
        let current = nanos(now) / self.bucket_nanos;
        if current <= self.newest {
            return;
        }
        let passed = (current - self.newest).min(BUCKETS as u64);
        for step in 1..=passed {
            let at = (self.newest + step) % BUCKETS as u64;
            self.buckets[at as usize] = Counts::default();
        }
        self.newest = current;
    }

    pub(crate) fn add(&mut self, now: Duration, counts: Counts) {
        self.advance(now);
        let at = (self.newest % BUCKETS as u64) as usize;
        self.buckets[at].add(counts);
    }

    pub(crate) fn sum(&mut self, now: Duration) -> Counts {
        self.advance(now);
        let mut sum = Counts::default();
        self.buckets.iter().for_each(|bucket| sum.add(*bucket));
        sum
    }

    pub(crate) fn clear(&mut self) {
        self.buckets = [Counts::default(); BUCKETS];
    }
}
