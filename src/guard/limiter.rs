//! A limit on the requests that are under way to an upstream, with a short queue in front of it.
//!
//! The limit is fixed or learned (`gradient`). A request that finds it used up waits. When the queue
//! is full, a new request displaces a waiting one of a lower rank, and is refused if there is none.
//! While a request waits, the limit is used up: a free place is given away at once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::gradient::Gradient;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// How important a request is; the greater goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// How many ranks there are: three priorities, storable or not.
    pub const COUNT: usize = 6;

    /// A rank from a priority (0 to 2) and whether the response may be stored: what can be stored
    /// helps the next request as well.
    pub fn new(priority: u8, storable: bool) -> Self {
        Rank(priority.min(2) * 2 + u8::from(storable))
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Bounds of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterRules {
    /// Most requests under way.
    pub max: u32,
    /// Where a learned limit does not go below.
    pub min: u32,
    /// Whether the limit is learned from latency.
    pub adaptive: bool,
    /// Requests that may wait.
    pub queue_max: u32,
}

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The queue is full, and no waiting request has a lower rank.
    QueueFull,
    /// It waited, and a request of a higher rank took its place in the queue.
    Displaced,
}

/// How a request turned out, as far as it shows the load of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// It was answered after this time.
    Answered(Duration),
    /// It failed as an overloaded upstream fails: no answer in time.
    Overloaded,
    /// It ended without showing anything about the load.
    Nothing,
}

/// What a limiter answers to a request.
#[derive(Debug)]
pub enum Acquired {
    /// It may be sent.
    Permit(Permit),
    /// It waits in the queue; the future ends with a permit or a refusal.
    Queued(Queued),
    /// It is refused at once.
    Shed(Shed),
}

/// The present counts of a limiter, for the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterStatus {
    /// The limit at present.
    pub limit: u32,
    /// Requests that hold a place now.
    pub in_flight: u32,
    /// Requests that wait in the queue now.
    pub queued: u32,
}

#[derive(Debug)]
enum Waiting {
    Since(Option<Waker>),
    Granted,
    Displaced,
    /// Its future has seen how it ended.
    Over,
}

type Waiter = Arc<Mutex<Waiting>>;

#[derive(Debug)]
struct Inner {
    limit: f64,
    in_flight: u32,
    queues: [VecDeque<Waiter>; Rank::COUNT],
    queued: u32,
    gradient: Gradient,
}

/// A limit on concurrent requests with its queue, shared by all who send to the same place.
#[derive(Debug)]
pub struct Limiter {
    rules: LimiterRules,
    inner: Mutex<Inner>,
}

impl Limiter {
    /// A limiter; a learned limit begins at 20, or at its bounds.
    pub fn new(rules: LimiterRules) -> Arc<Self> {
        let max = rules.max.max(1);
        let start = if rules.adaptive { max.min(rules.min.max(20)) } else { max };
        let inner = Inner {
            limit: f64::from(start),
            in_flight: 0,
            queues: Default::default(),
            queued: 0,
            gradient: Gradient::default(),
        };
        Arc::new(Limiter { rules, inner: Mutex::new(inner) })
    }

    /// Takes a place if one is free, and never waits.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut inner = lock(&self.inner);
        inner.has_room().then(|| {
            inner.in_flight += 1;
            Permit { limiter: Arc::clone(self), held: true }
        })
    }

    /// Takes a place, or waits in the queue, or is refused.
    pub fn acquire(self: &Arc<Self>, rank: Rank) -> Acquired {
        let mut inner = lock(&self.inner);
        if inner.has_room() {
            inner.in_flight += 1;
            return Acquired::Permit(Permit { limiter: Arc::clone(self), held: true });
        }
        let mut displaced = None;
        if inner.queued >= self.rules.queue_max {
            displaced = inner.displace_below(rank);
            if displaced.is_none() {
                return Acquired::Shed(Shed::QueueFull);
            }
        }
        let waiter = Arc::new(Mutex::new(Waiting::Since(None)));
        inner.queues[rank.index()].push_back(Arc::clone(&waiter));
        inner.queued += 1;
        drop(inner);
        displaced.flatten().into_iter().for_each(Waker::wake);
        Acquired::Queued(Queued { limiter: Arc::clone(self), waiter, rank })
    }

    /// The present counts of a limiter, for the admin port.
    pub fn status(&self) -> LimiterStatus {
        let inner = lock(&self.inner);
        LimiterStatus {
            limit: inner.limit as u32,
            in_flight: inner.in_flight,
            queued: inner.queued,
        }
    }

    /// Gives a place back, and hands what is free to those who wait.
    fn release(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.in_flight -= 1;
        let wakers = inner.grant();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        f64::from(self.in_flight) < self.limit.floor().max(1.0)
    }

    /// Takes the place of the waiter that came last among those of the lowest rank, if that is
    /// below `rank`; its waker, if it has one.
    fn displace_below(&mut self, rank: Rank) -> Option<Option<Waker>> {
        let lowest = self.queues.iter_mut().take(rank.index()).find(|queue| !queue.is_empty())?;
        let waiter = lowest.pop_back()?;
        self.queued -= 1;
        let before = std::mem::replace(&mut *lock(&waiter), Waiting::Displaced);
        match before {
            Waiting::Since(waker) => Some(waker),
            _ => Some(None),
        }
    }

    /// Grants what is free to those who wait: the most important first, then who came first.
    fn grant(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.queued > 0 && self.has_room() {
            let next = self.queues.iter_mut().rev().find_map(VecDeque::pop_front);
            let Some(waiter) = next else { break };
            self.queued -= 1;
            self.in_flight += 1;
            if let Waiting::Since(Some(waker)) =
                std::mem::replace(&mut *lock(&waiter), Waiting::Granted)
            {
                wakers.push(waker);
            }
        }
        wakers
    }
}

/// A request under way; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    held: bool,
}

impl Permit {
    /// Ends the request at `now`, and reports how it turned out.
    pub fn complete(mut self, sample: Sample, now: Duration) {
        self.held = false;
        let limiter = &self.limiter;
        let mut inner = lock(&limiter.inner);
        let latency = match sample {
            Sample::Answered(latency) => Some(latency),
            Sample::Overloaded => None,
            Sample::Nothing => return limiter.release(inner),
        };
        if limiter.rules.adaptive {
            let (in_flight, limit) = (inner.in_flight, inner.limit);
            if let Some(next) = inner.gradient.observe(now, latency, in_flight, limit) {
                let max = f64::from(limiter.rules.max.max(1));
                let min = f64::from(limiter.rules.min.max(1)).min(max);
                inner.limit = next.clamp(min, max);
            }
        }
        limiter.release(inner);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            self.limiter.release(lock(&self.limiter.inner));
        }
    }
}

/// A request that waits for its place. To drop it is to stop waiting.
#[derive(Debug)]
pub struct Queued {
    limiter: Arc<Limiter>,
    waiter: Waiter,
    rank: Rank,
}

impl Future for Queued {
    type Output = Result<Permit, Shed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = lock(&self.waiter);
        match &mut *waiting {
            Waiting::Since(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Waiting::Granted => {
                *waiting = Waiting::Over;
                Poll::Ready(Ok(Permit { limiter: Arc::clone(&self.limiter), held: true }))
            }
            Waiting::Displaced | Waiting::Over => {
                *waiting = Waiting::Over;
                Poll::Ready(Err(Shed::Displaced))
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // Places are granted under this lock, so that what is seen here stays so.
        let mut inner = lock(&self.limiter.inner);
        let was = std::mem::replace(&mut *lock(&self.waiter), Waiting::Over);
        match was {
            Waiting::Since(_) => {
                let queue = &mut inner.queues[self.rank.index()];
                if let Some(at) = queue.iter().position(|have| Arc::ptr_eq(have, &self.waiter)) {
                    queue.remove(at);
                    inner.queued -= 1;
                }
            }
            Waiting::Granted => self.limiter.release(inner),
            Waiting::Displaced | Waiting::Over => {}
        }
    }
}
