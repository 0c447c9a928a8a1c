//! Where a learned limit settles.

use std::time::Duration;

use crate::gradient::*;

/// An upstream that works on `capacity` requests at once, each for `work`; what is beyond
/// waits in it. Always as many requests are under way as the limit allows.
fn settled(capacity: f64, work: f64, start: f64) -> f64 {
    let mut gradient = Gradient::default();
    let (mut limit, mut now) = (start, Duration::ZERO);
    for _ in 0..20_000 {
        now += Duration::from_millis(11);
        let latency = work * (limit / capacity).max(1.0);
        let latency = Some(Duration::from_secs_f64(latency));
        if let Some(next) = gradient.observe(now, latency, limit as u32, limit) {
            limit = next.clamp(1.0, 1000.0);
        }
    }
    limit
}

#[test]
fn it_settles_near_what_the_upstream_bears() {
    for start in [2.0, 10.0, 90.0] {
        let limit = settled(50.0, 0.02, start);
        assert!((45.0..=110.0).contains(&limit), "from {start}: {limit}");
    }
}

#[test]
fn an_upstream_that_has_become_slower_for_good_is_not_strangled() {
    let mut gradient = Gradient::default();
    let (mut limit, mut now) = (20.0, Duration::ZERO);
    for round in 0..20_000 {
        now += Duration::from_millis(11);
        let latency = Duration::from_millis(if round < 2_000 { 5 } else { 50 });
        if let Some(next) = gradient.observe(now, Some(latency), limit as u32, limit) {
            limit = next.clamp(1.0, 200.0);
        }
    }
    assert!(limit > 100.0, "{limit}");
}

#[test]
fn overload_brings_it_down() {
    let mut gradient = Gradient::default();
    let (mut limit, mut now) = (100.0, Duration::ZERO);
    for _ in 0..400 {
        now += Duration::from_millis(11);
        if let Some(next) = gradient.observe(now, None, 100, limit) {
            limit = next;
        }
    }
    assert!(limit < 10.0, "{limit}");
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut gradient = Gradient::default();
    let mut now = Duration::ZERO;
    for _ in 0..400 {
        now += Duration::from_millis(11);
        let next = gradient.observe(now, Some(Duration::from_millis(5)), 3, 20.0);
        assert!(next.is_none_or(|limit| limit <= 20.0));
    }
}
