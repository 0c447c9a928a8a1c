//! One fetch under way, its producer and its readers.
//!
//! Drops make the safe behaviour the default: a producer that is dropped before the end fails its
//! readers, and the last reader that leaves tells the producer, which stops or goes on for the next
//! ones. While the response may still be stored, all its bytes are kept, so that late requests can
//! join. Once it is too large to be stored, only a bounded window is kept, which moves along with
//! the slowest reader; one that holds others back for too long is cut loose.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use outrigger_coherence::Seq;
use outrigger_semantics::{Lifetimes, Variant, tags};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::coalesce::readers::{Next, Progress, Readers, Room};
use crate::error::UpstreamError;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// The response head of a fetch that may be shared.
#[derive(Debug)]
pub(crate) struct FlightHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub lifetimes: Lifetimes,
    pub variant: Variant,
    /// Fields that only the client whose request was forwarded may see.
    pub omit: Vec<HeaderName>,
    /// Position that the purge log had reached when the head arrived.
    pub seen_seq: Seq,
}

/// Result of a fetch, known with its response head.
#[derive(Clone, Debug)]
pub(crate) enum Resolution {
    /// A response that may be shared; its bytes follow.
    Streaming(Arc<FlightHead>),
    /// A stored response answers: validated by a 304, stale in place of an error, or stored by
    /// another request in the meantime.
    Entry(Arc<Entry>, Outcome),
    /// The response is for the leader alone; the others fetch for themselves.
    Released,
    /// The upstream gave no response.
    Failed(Arc<UpstreamError>),
}

#[derive(Debug, Default)]
struct Inner {
    resolution: Option<Resolution>,
    chunks: VecDeque<Bytes>,
    first: usize,
    buffered: usize,
    /// Bytes handed on so far, kept or not.
    pushed: u64,
    end: Option<bool>,
    trailers: Option<HeaderMap>,
    readers: Readers,
    sliding: bool,
    producer: Option<Waker>,
}

impl Inner {
    /// Drops chunks that every reader has read. Only once late readers are no longer let in.
    fn slide(&mut self) {
        let slowest = self.readers.slowest().unwrap_or(usize::MAX);
        while self.first < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.first += 1;
            self.buffered -= chunk.len();
        }
    }

    /// Whether what is kept has to shrink before more may be handed on.
    fn is_full(&self) -> bool {
        self.sliding && self.buffered >= self.readers.window() && self.readers.live() > 0
    }
}

/// One fetch under way, as readers and the table see it.
#[derive(Debug)]
pub(crate) struct Flight {
    inner: Mutex<Inner>,
    born_seq: Seq,
    began: Instant,
    /// Whether it is a refresh behind a response, which goes on without readers.
    background: bool,
}

impl Flight {
    /// The position of the purge log before the fetch began.
    pub(crate) fn born_seq(&self) -> Seq {
        self.born_seq
    }

    /// The tags of the response, once its head has arrived.
    pub(crate) fn tags(&self) -> Option<Vec<Box<str>>> {
        match &self.lock().resolution {
            Some(Resolution::Streaming(head)) => Some(tags::of(&head.headers)),
            Some(Resolution::Entry(entry, _)) => Some(entry.tags.to_vec()),
            _ => None,
        }
    }

    /// The response head, if it has arrived and may be shared.
    pub(crate) fn head(&self) -> Option<Arc<FlightHead>> {
        match &self.lock().resolution {
            Some(Resolution::Streaming(head)) => Some(Arc::clone(head)),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// When a refresh that no client waited for at its start has taken so long that it may hang, and
    /// who needs its response should no longer wait for it. `None` for every other fetch.
    pub(crate) fn overdue_at(&self, patience: Duration) -> Option<Instant> {
        self.background.then(|| self.began + patience)
    }

    /// Whether a refresh is overdue by now, without a head so far.
    pub(crate) fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        self.overdue_at(patience).is_some_and(|at| at <= now) && self.lock().resolution.is_none()
    }

    /// The bytes that are kept while nobody reads. `None` while somebody does, and always for a
    /// refresh in the background. Who asks is woken when that has changed.
    pub(crate) fn poll_unread(&self, cx: &mut Context<'_>) -> Option<usize> {
        if self.background {
            return None;
        }
        let mut inner = self.lock();
        inner.producer = Some(cx.waker().clone());
        (inner.readers.live() == 0).then_some(inner.buffered)
    }

    /// Adds a reader, unless the first bytes are no longer kept or there are `readers_max` already.
    pub(crate) fn join(self: &Arc<Self>, readers_max: usize) -> Option<Reader> {
        let mut inner = self.lock();
        let closed = inner.sliding
            || matches!(inner.resolution, Some(Resolution::Released | Resolution::Failed(_)));
        if closed || inner.readers.live() >= readers_max {
            return None;
        }
        let late = inner.resolution.is_some();
        let slot = inner.readers.add();
        // A fetch that nobody read learns that somebody does.
        let waker = if inner.readers.live() == 1 { inner.producer.take() } else { None };
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
        Some(Reader { flight: Arc::clone(self), slot, late })
    }
}

/// The part of one request in a fetch: it waits for the result and reads the bytes.
#[derive(Debug)]
pub(crate) struct Reader {
    flight: Arc<Flight>,
    slot: usize,
    late: bool,
}

impl Reader {
    /// Waits for the result of the fetch.
    pub(crate) async fn resolution(&self) -> Resolution {
        poll_fn(|cx| {
            let mut inner = self.flight.lock();
            match &inner.resolution {
                Some(resolution) => Poll::Ready(resolution.clone()),
                None => {
                    inner.readers.waits(self.slot, cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next bytes: `None` at the end, an error if the body broke off, or if this reader has held
    /// others back and was cut loose.
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut inner = self.flight.lock();
        let inner = &mut *inner;
        let Next::Chunk(next) = inner.readers.next(self.slot) else {
            return Poll::Ready(Some(Err(Broken)));
        };
        if let Some(chunk) = inner.chunks.get(next - inner.first).cloned() {
            inner.readers.took(self.slot, chunk.len());
            if inner.sliding {
                inner.slide();
                inner.producer.take().into_iter().for_each(Waker::wake);
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match inner.end {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(Broken))),
            None => {
                inner.readers.waits(self.slot, cx.waker());
                if inner.is_full() {
                    // From now on somebody waits for those who are behind.
                    inner.producer.take().into_iter().for_each(Waker::wake);
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.flight.lock();
        inner.readers.remove(self.slot);
        if inner.sliding {
            inner.slide();
        }
        let waker = inner.producer.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Reader {
    /// See [`Flight::overdue_at`].
    pub(crate) fn overdue_at(&self, patience: Duration) -> Option<Instant> {
        self.flight.overdue_at(patience)
    }

    /// Whether the response head had arrived before this reader joined.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// Whether the response can still be stored.
    pub(crate) fn is_kept(&self) -> bool {
        !self.flight.lock().sliding
    }

    /// The trailers, once the body has ended.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        self.flight.lock().trailers.clone()
    }
}

/// The body of a fetch broke off before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The part of the task that fetches: it resolves the flight and hands bytes to the readers.
#[derive(Debug)]
pub(crate) struct Producer {
    flight: Arc<Flight>,
}

impl Producer {
    /// A new flight, at the position `born_seq` of the purge log. One in the `background` is a refresh
    /// behind a response.
    pub(crate) fn new(background: bool, born_seq: Seq, began: Instant) -> Self {
        let inner = Mutex::default();
        Producer { flight: Arc::new(Flight { inner, born_seq, began, background }) }
    }

    /// The position of the purge log before the fetch began.
    pub(crate) fn born_seq(&self) -> Seq {
        self.flight.born_seq
    }

    /// The flight, for others to join.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Gives the readers the result of the fetch. Only the first call counts.
    pub(crate) fn resolve(&self, resolution: Resolution) {
        let mut inner = self.flight.lock();
        if inner.resolution.is_none() {
            inner.resolution = Some(resolution);
        }
        let wakers = inner.readers.wake();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Hands bytes to the readers.
    pub(crate) fn push(&self, chunk: Bytes) {
        let mut inner = self.flight.lock();
        inner.buffered += chunk.len();
        inner.pushed += chunk.len() as u64;
        inner.chunks.push_back(chunk);
        if inner.sliding {
            inner.slide();
        }
        let wakers = inner.readers.wake();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Lets no reader join any more and drops bytes that all have read: the response is too large to
    /// be stored.
    pub(crate) fn stop_keeping(&self) {
        let mut inner = self.flight.lock();
        inner.sliding = true;
        inner.slide();
    }

    /// Whether there is no reader.
    pub(crate) fn is_unread(&self) -> bool {
        self.flight.lock().readers.live() == 0
    }

    /// Waits until more may be handed on, or until somebody waits for those who are behind. It never
    /// says [`Room::Full`].
    pub(crate) async fn room(&self) -> Room {
        self.window(|room| room != Room::Full).await
    }

    /// Waits until more may be handed on.
    pub(crate) async fn free(&self) {
        self.window(|room| room == Room::Free).await;
    }

    async fn window(&self, wanted: impl Fn(Room) -> bool) -> Room {
        poll_fn(|cx| {
            let mut inner = self.flight.lock();
            let room = if inner.is_full() { inner.readers.room(inner.pushed) } else { Room::Free };
            if wanted(room) {
                return Poll::Ready(room);
            }
            inner.producer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Counts the time that somebody has waited for those who are behind, and cuts loose who has
    /// held others back for too long. Returns how many were.
    pub(crate) fn count_hold(&self, progress: Progress) -> usize {
        let mut inner = self.flight.lock();
        let pushed = inner.pushed;
        let cut = inner.readers.count_hold(pushed, progress);
        if cut > 0 {
            inner.slide();
        }
        cut
    }

    /// Sets the trailers, which readers get after the body.
    pub(crate) fn trailers(&self, trailers: HeaderMap) {
        self.flight.lock().trailers = Some(trailers);
    }

    /// Ends the body; without `complete`, readers see it break off.
    pub(crate) fn finish(&self, complete: bool) {
        let mut inner = self.flight.lock();
        if inner.end.is_none() {
            inner.end = Some(complete);
        }
        let wakers = inner.readers.wake();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.resolve(Resolution::Failed(Arc::new(UpstreamError::Aborted)));
        self.finish(false);
    }
}
