//! Who is cut loose, with time passed in.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::coalesce::readers::*;

const WINDOW: u64 = SHARED_WINDOW_BYTES_MAX as u64;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The time from `since` to `now` of a fetch that began just then: what was taken counts for little.
fn from(since: Instant, now: Instant) -> Progress {
    Progress { began: since, since, now }
}

/// Readers of which the first has read everything and waits, and the others nothing.
fn one_waits_for(others: usize) -> Readers {
    let mut readers = Readers::default();
    let waits = readers.add();
    for _ in 0..others {
        readers.add();
    }
    readers.took(waits, SHARED_WINDOW_BYTES_MAX);
    readers.waits(waits, Waker::noop());
    readers
}

#[test]
fn nobody_is_blamed_while_all_are_slow() {
    let mut readers = Readers::default();
    readers.add();
    readers.add();
    assert_eq!(readers.room(WINDOW), Room::Full);
    readers.took(0, SHARED_WINDOW_BYTES_MAX);
    // It has not asked for more.
    assert_eq!(readers.room(WINDOW), Room::Full);
    readers.waits(0, Waker::noop());
    assert_eq!(readers.room(WINDOW), Room::Held { in_turn: false });
}

#[test]
fn who_was_woken_and_not_asked_since_waits_for_its_turn() {
    let mut readers = Readers::default();
    let (quick, woken) = (readers.add(), readers.add());
    readers.waits(woken, Waker::noop());
    assert_eq!(readers.wake().len(), 1);
    readers.took(quick, SHARED_WINDOW_BYTES_MAX);
    readers.waits(quick, Waker::noop());
    assert_eq!(readers.room(WINDOW), Room::Held { in_turn: true });
    readers.next(woken);
    assert_eq!(readers.room(WINDOW), Room::Held { in_turn: false });
}

#[test]
fn a_stalled_reader_is_cut_loose_after_the_time_it_may_hold_others() {
    let mut readers = one_waits_for(1);
    let began = Instant::now();
    assert_eq!(readers.count_hold(WINDOW, from(began, began + HOLD_MAX - ms(1))), 0);
    assert_eq!(readers.count_hold(WINDOW, from(began + HOLD_MAX - ms(1), began + HOLD_MAX)), 1);
    assert!(matches!(readers.next(1), Next::Cut));
    assert!(matches!(readers.next(0), Next::Chunk(1)));
    assert_eq!(readers.live(), 1);
    // Its own end changes nothing any more.
    readers.remove(1);
    assert_eq!(readers.live(), 1);
}

#[test]
fn time_without_a_hold_forgives_as_much() {
    for (held, fine, cut) in [(400, 600, 0), (600, 400, 1)] {
        let mut readers = one_waits_for(1);
        let (mut at, mut all) = (Instant::now(), 0);
        for _ in 0..20 {
            all += readers.count_hold(WINDOW, from(at, at + ms(held)));
            at += ms(held) + ms(fine);
        }
        assert_eq!(all, cut, "{held} of {}", held + fine);
    }
}

#[test]
fn many_slow_readers_one_after_the_other_do_not_add_up() {
    let mut readers = one_waits_for(0);
    let (mut at, mut held) = (Instant::now(), Duration::ZERO);
    for _ in 0..20 {
        readers.add();
        while readers.count_hold(WINDOW, from(at, at + ms(25))) == 0 {
            (at, held) = (at + ms(25), held + ms(25));
        }
        (at, held) = (at + ms(25), held + ms(25));
    }
    assert!(held < 3 * HOLD_MAX, "{held:?}");
}

/// Readers a window apart, in a fetch of so many bytes in a second, of which somebody waits all the
/// time: whether the other is cut loose that takes so many.
fn is_cut(fetch: u64, reader: u64) -> bool {
    let mut readers = one_waits_for(1);
    let began = Instant::now();
    let (mut pushed, mut now) = (10 * fetch, began + ms(10_000));
    (0..2).for_each(|slot| readers.took(slot, (pushed - WINDOW) as usize));
    (0..200).any(|_| {
        let since = now;
        now += ms(50);
        // It leaves the window full: the others read on as it does.
        (0..2).for_each(|slot| readers.took(slot, (reader / 20) as usize));
        pushed += reader / 20;
        readers.count_hold(pushed, Progress { began, since, now }) > 0
    })
}

#[test]
fn a_reader_that_keeps_up_with_the_fetch_is_not_slow() {
    assert!(!is_cut(5 << 20, 5 << 20));
    assert!(!is_cut(5 << 20, 3 << 20));
    assert!(is_cut(5 << 20, 1 << 20));
    assert!(is_cut(50 << 20, 5 << 20));
    assert!(is_cut(5 << 20, 0));
}
