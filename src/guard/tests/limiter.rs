//! Who gets a place and who waits for one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use crate::limiter::*;

fn ranked(index: u8) -> Rank {
    Rank::new(index / 2, index % 2 == 1)
}

fn limiter(max: u32, queue_max: u32) -> Arc<Limiter> {
    Limiter::new(LimiterRules { max, min: 1, adaptive: false, queue_max })
}

fn queued(acquired: Acquired) -> Queued {
    match acquired {
        Acquired::Queued(queued) => queued,
        other => panic!("not queued: {other:?}"),
    }
}

fn poll(queued: &mut Queued) -> Poll<Result<Permit, Shed>> {
    Pin::new(queued).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn places_go_to_the_most_important_then_to_who_came_first() {
    let limiter = limiter(1, 9);
    let held = limiter.try_acquire().expect("a place");
    let mut low = queued(limiter.acquire(ranked(0)));
    let mut first = queued(limiter.acquire(ranked(5)));
    let mut second = queued(limiter.acquire(ranked(5)));
    drop(held);
    assert!(poll(&mut low).is_pending() && poll(&mut second).is_pending());
    let Poll::Ready(Ok(permit)) = poll(&mut first) else { panic!("its turn") };
    permit.complete(Sample::Nothing, Duration::ZERO);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
    assert!(matches!(poll(&mut low), Poll::Ready(Ok(_))));
}

#[test]
fn the_least_important_gives_way() {
    let limiter = limiter(1, 1);
    let _held = limiter.try_acquire().expect("a place");
    let mut low = queued(limiter.acquire(ranked(0)));
    assert!(matches!(limiter.acquire(ranked(0)), Acquired::Shed(Shed::QueueFull)));
    let _high = queued(limiter.acquire(ranked(5)));
    assert!(matches!(poll(&mut low), Poll::Ready(Err(Shed::Displaced))));
    assert!(matches!(limiter.acquire(ranked(5)), Acquired::Shed(Shed::QueueFull)));
}

#[test]
fn who_leaves_with_a_place_granted_gives_it_back() {
    let limiter = limiter(1, 9);
    let held = limiter.try_acquire().expect("a place");
    let first = queued(limiter.acquire(ranked(0)));
    let mut second = queued(limiter.acquire(ranked(0)));
    drop(held);
    drop(first);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
}

proptest! {
    /// Whatever happens: no more than the limit are under way, no more than the queue holds
    /// wait, nobody waits beside a free place, and in the end all places are free.
    #[test]
    fn it_keeps_its_promises(
        acts in proptest::collection::vec((0u8..4, 0u8..6, 0usize..6), 1..200),
        max in 1u32..4,
        queue_max in 0u32..4,
    ) {
        let limiter = limiter(max, queue_max);
        let (mut permits, mut waiting) = (Vec::new(), Vec::new());
        for (act, rank, at) in acts {
            match act {
                0 | 1 => match limiter.acquire(ranked(rank)) {
                    Acquired::Permit(permit) => permits.push(permit),
                    Acquired::Queued(queued) => waiting.push(queued),
                    Acquired::Shed(_) => prop_assert_eq!(limiter.status().queued, queue_max),
                },
                2 if at < permits.len() => drop(permits.swap_remove(at)),
                3 if at < waiting.len() => drop(waiting.swap_remove(at)),
                _ => {}
            }
            let mut still = Vec::new();
            for mut queued in waiting.drain(..) {
                match poll(&mut queued) {
                    Poll::Pending => still.push(queued),
                    Poll::Ready(Ok(permit)) => permits.push(permit),
                    Poll::Ready(Err(_)) => {}
                }
            }
            waiting = still;
            let status = limiter.status();
            prop_assert_eq!(status.in_flight as usize, permits.len());
            prop_assert_eq!(status.queued as usize, waiting.len());
            prop_assert!(status.in_flight <= max && status.queued <= queue_max);
            prop_assert!(status.queued == 0 || status.in_flight == max);
        }
        drop((waiting, permits));
        prop_assert_eq!(limiter.status().in_flight, 0);
    }
}
