//! Counts over a sliding window.

use std::time::Duration;

use crate::window::*;

const ONE: Counts = Counts { total: 1, failed: 0, slow: 0 };

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let mut window = Window::new(Duration::from_secs(10));
    window.add(Duration::from_millis(500), ONE);
    window.add(Duration::from_millis(5_500), ONE);
    assert_eq!(window.sum(Duration::from_millis(9_900)).total, 2);
    assert_eq!(window.sum(Duration::from_millis(10_100)).total, 1);
    assert_eq!(window.sum(Duration::from_secs(100)).total, 0);
}

proptest::proptest! {
    /// Against a list of times: never more than the window holds, never less than nine tenths.
    #[test]
    fn it_agrees_with_a_list(gaps in proptest::collection::vec(0u64..2_000, 1..60)) {
        let mut window = Window::new(Duration::from_secs(10));
        let (mut now, mut times) = (0, Vec::new());
        for gap in gaps {
            now += gap;
            window.add(Duration::from_millis(now), ONE);
            times.push(now);
            let sum = window.sum(Duration::from_millis(now)).total as usize;
            let within = |ms: u64| times.iter().filter(|t| **t + ms > now).count();
            proptest::prop_assert!(sum >= within(9_000));
            proptest::prop_assert!(sum <= within(10_001));
        }
    }
}
