//! Bodies of requests on their way to the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::body::BodyError;
use crate::headers::clean_trailers;

/// Bytes of an unread request body that are read and dropped before its connection is closed.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// Time limit for reading the rest of a request body.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request to the upstream.
pub(crate) enum RequestBody {
    /// The request has no body.
    Empty,
    /// The body of the client's request, streamed.
    Client(Box<ClientBody>),
}

/// The body of a client's request, with a limit for its pauses.
///
/// If the upstream answers without reading all of it, the rest is read and dropped, within limits:
/// closing the connection on a client that is still sending would reset it, and the answer would
/// be lost.
pub(crate) struct ClientBody {
    /// `None` once the rest was handed to [`discard`].
    incoming: Option<Incoming>,
    /// Dropped when the body has been read or given up, which resolves the receiver.
    read: Option<oneshot::Sender<()>>,
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// Of the bodies on its connection that are not read to their end, this is one. `None` where
    /// nobody counts them.
    unread: Option<Arc<AtomicUsize>>,
}

impl RequestBody {
    /// The client's body, with a receiver that resolves when it has been read or given up. With
    /// `idle`, a longer pause of the client fails the body.
    /// Its end is counted in `unread`.
    pub(crate) fn client(
        incoming: Incoming,
        idle: Option<Duration>,
        unread: Option<Arc<AtomicUsize>>,
    ) -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let ended = incoming.is_end_stream();
        let incoming = Some(incoming);
        let body = ClientBody { incoming, read: Some(sender), idle, timer: None, ended, unread };
        (Self::Client(Box::new(body)), receiver)
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl ClientBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let is_whole = incoming.is_end_stream() || matches!(polled, Poll::Ready(None));
        if is_whole || matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.read.take();
            self.ended = true;
        }
        if is_whole {
            note_end(&mut self.unread);
        }
        match (polled, self.idle) {
            (Poll::Pending, Some(idle)) => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::ClientTimeout)))
            }
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Ready(frame), _) => {
                self.timer = None;
                Poll::Ready(frame.map(|frame| frame.map(cleaned).map_err(BodyError::Client)))
            }
        }
    }
}

/// A frame, without trailer fields that may not come as such.
fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        clean_trailers(trailers);
    }
    frame
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take().filter(|_| !self.ended) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rest = discard(incoming, self.unread.take());
            runtime.spawn(tokio::time::timeout(DRAIN_TIMEOUT, rest));
        }
    }
}

/// Reads the rest of a body and drops it.
async fn discard(mut incoming: Incoming, mut unread: Option<Arc<AtomicUsize>>) {
    let mut left = DRAIN_BYTES_MAX;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return };
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
    note_end(&mut unread);
}

/// Counts a body as read to its end, once.
fn note_end(unread: &mut Option<Arc<AtomicUsize>>) {
    if let Some(count) = unread.take() {
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => {
                body.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
            }
        }
    }
}
