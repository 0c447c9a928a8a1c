//! How many requests may be sent again: a share of those of the last seconds, and none while
//! everything fails. A retry helps where another attempt may fare better; in an outage it is only
//! more load.

use std::time::Duration;

use crate::sync::{Mutex, lock};
use crate::window::{Counts, Window};

/// The time over which the share is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries within the window that are allowed whatever the share, so that a route with little
/// traffic can retry at all.
pub(crate) const RESERVE: u32 = 3;
/// After so many failures in a row nothing is sent again until a request succeeds.
const FAILURES_MAX: u32 = 3;

/// A budget of retries.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u8,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Requests as `total`, retries as `failed`.
    window: Window,
    failures_in_a_row: u32,
}

/// Why a retry is not in the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRetry {
    /// The share of the last seconds is used up.
    UsedUp,
    /// The last requests have all failed.
    AllFail,
}

impl RetryBudget {
    /// Retries may be `percent` of the requests of the last ten seconds.
    pub fn new(percent: u8) -> Self {
        let inner = Inner { window: Window::new(WINDOW), failures_in_a_row: 0 };
        RetryBudget { percent, inner: Mutex::new(inner) }
    }

    /// Counts a request that is no retry.
    pub fn deposit(&self, now: Duration) {
        lock(&self.inner).window.add(now, Counts { total: 1, ..Counts::default() });
    }

    /// Counts how an attempt turned out, retries included.
    pub fn note(&self, failed: bool) {
        let mut inner = lock(&self.inner);
        inner.failures_in_a_row =
            if failed { inner.failures_in_a_row.saturating_add(1) } else { 0 };
    }

    /// Takes one retry from the budget.
    ///
    /// # Errors
    /// Why there is none.
    pub fn withdraw(&self, now: Duration) -> Result<(), NoRetry> {
        let mut inner = lock(&self.inner);
        if inner.failures_in_a_row > FAILURES_MAX {
            return Err(NoRetry::AllFail);
        }
        let counts = inner.window.sum(now);
        let share = u64::from(counts.total) * u64::from(self.percent) / 100;
        if u64::from(counts.failed) >= share.max(u64::from(RESERVE)) || self.percent == 0 {
            return Err(NoRetry::UsedUp);
        }
        inner.window.add(now, Counts { failed: 1, ..Counts::default() });
        Ok(())
    }
}
