//! How many requests may be sent again: a share of those of the last seconds.

use std::time::Duration;

use crate::sync::{Mutex, lock};
use crate::window::{Counts, Window};

/// The time over which the share is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries within the window that are allowed whatever the share, so that a route with little
/// traffic can retry at all.
const RESERVE: u32 = 3;

/// A budget of retries.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u8,
    /// Requests as `total`, retries as `failed`.
    window: Mutex<Window>,
}

impl RetryBudget {
    /// Retries may be `percent` of the requests of the last ten seconds.
    pub fn new(percent: u8) -> Self {
        RetryBudget { percent, window: Mutex::new(Window::new(WINDOW)) }
    }

    /// Notes a request that is no retry.
    pub fn deposit(&self, now: Duration) {
        lock(&self.window).add(now, Counts { total: 1, ..Counts::default() });
    }

    /// Takes one retry from the budget, if there is one.
    pub fn withdraw(&self, now: Duration) -> bool {
        let mut window = lock(&self.window);
        let counts = window.sum(now);
        let share = u64::from(counts.total) * u64::from(self.percent) / 100;
        let allowed = u64::from(counts.failed) < share.max(u64::from(RESERVE));
        if allowed && self.percent > 0 {
            window.add(now, Counts { failed: 1, ..Counts::default() });
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// However requests and retries fall: over any window there are no more retries than the
        /// share of its requests, or the reserve.
        #[test]
        fn retries_stay_within_their_share(
            gaps in proptest::collection::vec(0u64..200, 1..400),
            percent in 0u8..=100,
        ) {
            let budget = RetryBudget::new(percent);
            let (mut now, mut requests, mut retries) = (Duration::ZERO, 0u64, 0u64);
            for gap in gaps {
                // Within one window, so that the sums are exact.
                now = (now + Duration::from_millis(gap)).min(Duration::from_millis(9_999));
                budget.deposit(now);
                requests += 1;
                retries += u64::from(budget.withdraw(now));
                let share = requests * u64::from(percent) / 100;
                proptest::prop_assert!(retries <= share.max(u64::from(RESERVE)));
            }
            proptest::prop_assert!(percent > 0 || retries == 0);
        }
    }

    #[test]
    fn the_budget_comes_back_with_time() {
        let budget = RetryBudget::new(20);
        let at = Duration::from_secs;
        budget.deposit(at(0));
        assert_eq!((0..9).filter(|_| budget.withdraw(at(0))).count(), 3);
        assert!(budget.withdraw(at(11)));
    }
}
