//! Who is cut loose, with time passed in.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::coalesce::readers::*;

const WINDOW: u64 = SHARED_WINDOW_BYTES_MAX as u64;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
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
    assert_eq!(readers.count_hold(WINDOW, began, began + HOLD_MAX - ms(1)), 0);
    assert_eq!(readers.count_hold(WINDOW, began + HOLD_MAX - ms(1), began + HOLD_MAX), 1);
    assert!(matches!(readers.next(1), Next::Cut));
    assert!(matches!(readers.next(0), Next::Chunk(1)));
    assert_eq!(readers.live(), 1);
    // Its own end changes nothing any more.
    readers.remove(1);
    assert_eq!(readers.live(), 1);
}

#[test]
fn a_reader_of_more_than_half_the_speed_is_never_cut_loose() {
    for (held, fine, cut) in [(400, 600, 0), (600, 400, 1)] {
        let mut readers = one_waits_for(1);
        let (mut at, mut all) = (Instant::now(), 0);
        for _ in 0..20 {
            all += readers.count_hold(WINDOW, at, at + ms(held));
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
        while readers.count_hold(WINDOW, at, at + ms(25)) == 0 {
            (at, held) = (at + ms(25), held + ms(25));
        }
        (at, held) = (at + ms(25), held + ms(25));
    }
    assert!(held < 3 * HOLD_MAX, "{held:?}");
}
