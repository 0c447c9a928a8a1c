//! Refreshing before expiry, by chance: the optimal probabilistic early expiration of Vattani,
//! Chierichetti and Lowenstein (VLDB 2015), known as XFetch.

use std::time::Duration;

/// With more fetch times than this left, the chance is below one in a million.
const HORIZON: u32 = 14;

/// Whether a response that stays fresh for `left` should be refreshed now, if fetching it takes
/// `fetch`. `random` is drawn evenly from 0 to 1. The longer the fetch and the nearer the end, the
/// likelier; of many requests one will draw a refresh before the rest finds the response stale.
pub fn is_due_early(left: Duration, fetch: Duration, random: impl FnOnce() -> f64) -> bool {
    if left > fetch.saturating_mul(HORIZON) {
        return false;
    }
    let random = random().clamp(f64::MIN_POSITIVE, 1.0);
    fetch.as_secs_f64() * -random.ln() >= left.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_falls_with_the_time_that_is_left() {
        let fetch = Duration::from_millis(100);
        let due =
            |left: u64, random: f64| is_due_early(Duration::from_millis(left), fetch, || random);
        // At one fetch time before the end the chance is 1/e.
        assert!(due(100, 0.36) && !due(100, 0.37));
        assert!(due(0, 1.0), "at the end it is certain");
        assert!(!due(1500, 0.0), "and far from it, impossible");
        assert!(!is_due_early(Duration::from_millis(1), Duration::ZERO, || 0.5));
    }
}
