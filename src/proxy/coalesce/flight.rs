//! One fetch under way, its producer and its readers.
//!
//! Drops make the safe behaviour the default: a producer that is dropped before the end fails its
//! readers, and the last reader that leaves tells the producer to stop. While the response may
//! still be stored, all its bytes are kept, so that late requests can join. Once it is too large to
//! be stored, only a bounded window is kept, which moves along with the slowest reader.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use outrigger_coherence::Seq;
use outrigger_semantics::{Lifetimes, Variant, tags};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::sync::{Arc, Mutex, MutexGuard, lock};
use crate::upstream::UpstreamError;

/// Bytes that may wait for the slowest reader of a response that is too large to store.
pub(crate) const WINDOW_BYTES_MAX: usize = 256 * 1024;

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

#[derive(Debug)]
struct ReaderState {
    next: usize,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Inner {
    resolution: Option<Resolution>,
    chunks: VecDeque<Bytes>,
    first: usize,
    buffered: usize,
    end: Option<bool>,
    trailers: Option<HeaderMap>,
    readers: Vec<Option<ReaderState>>,
    live: usize,
    sliding: bool,
    detached: bool,
    producer: Option<Waker>,
}

impl Inner {
    /// Drops chunks that every reader has read. Only once late readers are no longer let in.
    fn slide(&mut self) {
        let slowest =
            self.readers.iter().flatten().map(|reader| reader.next).min().unwrap_or(usize::MAX);
        while self.first < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.first += 1;
            self.buffered -= chunk.len();
        }
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().flatten().filter_map(|reader| reader.waker.take()).collect()
    }
}

/// One fetch under way, as readers and the table see it.
#[derive(Debug)]
pub(crate) struct Flight {
    inner: Mutex<Inner>,
    born_seq: Seq,
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

    /// Waits until there is no reader left. Never ends for a detached flight.
    pub(crate) async fn abandoned(self: Arc<Self>) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.live == 0 && !inner.detached {
                return Poll::Ready(());
            }
            inner.producer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Adds a reader, unless the first bytes are no longer kept or there are `readers_max` already.
    pub(crate) fn join(self: &Arc<Self>, readers_max: usize) -> Option<Reader> {
        let mut inner = self.lock();
        let closed = inner.sliding
            || matches!(inner.resolution, Some(Resolution::Released | Resolution::Failed(_)));
        if closed || inner.live >= readers_max {
            return None;
        }
        let late = inner.resolution.is_some();
        let state = ReaderState { next: 0, waker: None };
        let slot = match inner.readers.iter().position(Option::is_none) {
            // Searching for a free slot is only worth it when some readers have left.
            Some(free) if inner.live < inner.readers.len() => {
                inner.readers[free] = Some(state);
                free
            }
            _ => {
                inner.readers.push(Some(state));
                inner.readers.len() - 1
            }
        };
        inner.live += 1;
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
                    if let Some(Some(reader)) = inner.readers.get_mut(self.slot) {
                        reader.waker = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next bytes: `None` at the end, an error if the body broke off.
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut inner = self.flight.lock();
        let inner = &mut *inner;
        let Some(Some(reader)) = inner.readers.get_mut(self.slot) else {
            return Poll::Ready(None);
        };
        if let Some(chunk) = inner.chunks.get(reader.next - inner.first) {
            let chunk = chunk.clone();
            reader.next += 1;
            if inner.sliding {
                inner.slide();
                if let Some(waker) = inner.producer.take() {
                    waker.wake();
                }
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match inner.end {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(Broken))),
            None => {
                reader.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.flight.lock();
        if let Some(slot) = inner.readers.get_mut(self.slot) {
            *slot = None;
        }
        inner.live -= 1;
        if inner.sliding {
            inner.slide();
        }
        let waker = inner.producer.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Reader {
    /// Leaves, and lets the fetch go on even without readers.
    pub(crate) fn leave_running(self) {
        self.flight.lock().detached = true;
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
    /// A new flight. A `detached` one goes on without readers, as a background refresh does.
    pub(crate) fn new(detached: bool, born_seq: Seq) -> Self {
        let inner = Mutex::new(Inner { detached, ..Inner::default() });
        Producer { flight: Arc::new(Flight { inner, born_seq }) }
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
        let wakers = inner.take_wakers();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Hands bytes to the readers.
    pub(crate) fn push(&self, chunk: Bytes) {
        let mut inner = self.flight.lock();
        inner.buffered += chunk.len();
        inner.chunks.push_back(chunk);
        if inner.sliding {
            inner.slide();
        }
        let wakers = inner.take_wakers();
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
        self.flight.lock().live == 0
    }

    /// Waits until the window has room, which the slowest reader makes.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| {
            let mut inner = self.flight.lock();
            if !inner.sliding || inner.buffered < WINDOW_BYTES_MAX || inner.live == 0 {
                return Poll::Ready(());
            }
            inner.producer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
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
        let wakers = inner.take_wakers();
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
