//! The share of retries.

use std::time::Duration;

use crate::retry::*;

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
            retries += u64::from(budget.withdraw(now).is_ok());
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
    assert_eq!((0..9).filter(|_| budget.withdraw(at(0)).is_ok()).count(), 3);
    assert_eq!(budget.withdraw(at(11)), Ok(()));
}

#[test]
fn an_outage_ends_retries_and_a_success_brings_them_back() {
    let budget = RetryBudget::new(100);
    let at = Duration::from_secs(1);
    (0..90).for_each(|_| budget.deposit(at));
    let made = (0..90).filter(|_| {
        budget.note(true);
        budget.withdraw(at).is_ok()
    });
    assert_eq!(made.count(), 3);
    assert_eq!(budget.withdraw(at), Err(NoRetry::AllFail));
    budget.note(false);
    assert_eq!(budget.withdraw(at), Ok(()));
}
