//! Times that grow with each failure in a row.

use std::time::Duration;

/// Bounds of a back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffRules {
    /// Time after the first failure.
    pub first: Duration,
    /// Bound of the doubled times.
    pub max: Duration,
}

/// How often something failed in a row, and when it may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    next: Duration,
}

impl Backoff {
    /// After a further failure at `now`, time since any fixed moment: the wait doubles, and is
    /// drawn by `jitter`, 0 to 1, from its upper half. It is at least `usual`, the time between two
    /// tries when nothing fails, within the bounds: a failure never makes tries more frequent.
    pub fn after_failure(
        before: Option<Backoff>,
        rules: BackoffRules,
        usual: Duration,
        now: Duration,
        jitter: f64,
    ) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let doubled = rules.first.saturating_mul(1 << (failures.clamp(1, 20) - 1));
        let wait = doubled.min(rules.max).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Backoff { failures, next: now + wait.max(usual.min(rules.max)) }
    }

    /// Whether it may be tried again.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// When it may be tried again.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BackoffRules =
        BackoffRules { first: Duration::from_secs(1), max: Duration::from_secs(10) };

    proptest::proptest! {
        #[test]
        fn waits_grow_within_their_bounds(count in 1u32..80, jitter in 0.0f64..1.0) {
            let mut backoff = None;
            let mut now = Duration::ZERO;
            for nth in 1..=count {
                let next = Backoff::after_failure(backoff, RULES, Duration::ZERO, now, jitter);
                let wait = next.next() - now;
                let nominal = Duration::from_secs(1 << (nth.min(5) - 1)).min(RULES.max);
                proptest::prop_assert!(wait <= nominal && wait * 2 >= nominal);
                proptest::prop_assert!(!next.is_due(now) && next.is_due(now + wait));
                proptest::prop_assert_eq!(next.failures(), nth);
                now += wait;
                backoff = Some(next);
            }
        }

        #[test]
        fn failing_is_never_tried_more_often_than_usual(usual in 0u64..30, jitter in 0.0f64..1.0) {
            let usual = Duration::from_secs(usual);
            let next = Backoff::after_failure(None, RULES, usual, Duration::ZERO, jitter);
            proptest::prop_assert!(next.next() >= usual.min(RULES.max));
            proptest::prop_assert!(next.next() <= RULES.max);
        }
    }
}
