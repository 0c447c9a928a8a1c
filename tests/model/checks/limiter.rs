//! Places under a limit: never too many, and nobody forgotten.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::{Ghost, choose, explore, together};
use crate::limiter::{Acquired, Limiter, LimiterRules, Permit, Queued, Rank, Sample, Shed};
use crate::sync::Arc;

const MAX: u32 = 2;
const QUEUE_MAX: u32 = 2;

#[derive(Debug, Default)]
struct Seen {
    in_flight: Ghost,
    rounds: Ghost,
}

/// Counts a place as taken, and gives it back in one of the ways there are.
fn use_place(seen: &Seen, permit: Permit) {
    assert!(seen.in_flight.add(1) <= MAX as usize, "above the limit");
    thread::yield_now();
    seen.in_flight.take(1);
    let now = Duration::from_millis(120 * seen.rounds.add(1) as u64);
    match choose(4) {
        0 => permit.complete(Sample::Answered(Duration::from_millis(5)), now),
        1 => permit.complete(Sample::Overloaded, now),
        2 => permit.complete(Sample::Nothing, now),
        _ => drop(permit),
    }
}

/// Waits to the end, or leaves at once, or leaves after having been heard once.
fn wait(seen: &Seen, mut queued: Queued) {
    let ended = match choose(4) {
        0 => None,
        1 => block_on(poll_fn(|cx| match Pin::new(&mut queued).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => Poll::Ready(None),
        })),
        _ => Some(block_on(&mut queued)),
    };
    if ended.is_none() {
        thread::yield_now();
    }
    drop(queued);
    match ended {
        Some(Ok(permit)) => use_place(seen, permit),
        Some(Err(shed)) => assert_eq!(shed, Shed::Displaced),
        None => {}
    }
}

fn story(adaptive: bool) {
    let rules = LimiterRules { max: MAX, min: 1, adaptive, queue_max: QUEUE_MAX };
    let limiter = Limiter::new(rules);
    let seen = Arc::new(Seen::default());
    let of = Arc::clone(&limiter);
    together(6, move |at| {
        if at == 0 {
            return watch(&of, adaptive);
        }
        for _ in 0..2 {
            match of.acquire(Rank::new(choose(3) as u8, false)) {
                Acquired::Permit(permit) => use_place(&seen, permit),
                Acquired::Queued(queued) => wait(&seen, queued),
                Acquired::Shed(shed) => assert_eq!(shed, Shed::QueueFull),
            }
        }
    });
    let status = limiter.status();
    assert_eq!((status.in_flight, status.queued), (0, 0), "all places are free at the end");
    let all: Vec<_> = (0..status.limit).map(|_| limiter.try_acquire()).collect();
    assert!(all.iter().all(Option::is_some) && limiter.try_acquire().is_none());
}

/// What anybody may see at any time.
fn watch(limiter: &Limiter, adaptive: bool) {
    for _ in 0..4 {
        let status = limiter.status();
        assert!((1..=MAX).contains(&status.limit) && status.in_flight <= MAX, "{status:?}");
        // A learned limit may have fallen below what is under way.
        assert!(adaptive || status.in_flight <= status.limit, "{status:?}");
        assert!(status.queued <= QUEUE_MAX, "{status:?}");
        let idle = status.queued > 0 && status.in_flight < status.limit;
        assert!(!idle, "somebody waits beside a free place: {status:?}");
        thread::yield_now();
    }
}

#[test]
fn a_fixed_limit_holds_and_every_waiter_is_served_displaced_or_leaves() {
    explore(3000, || story(false));
}

#[test]
fn a_learned_limit_holds_and_every_waiter_is_served_displaced_or_leaves() {
    explore(3000, || story(true));
}
