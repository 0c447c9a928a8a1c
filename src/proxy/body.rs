//! Bodies on their way: requests to the upstream, responses to the client.
//!
//! All stream; none is collected. Back-pressure comes from being polled.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::coalesce::flight::Reader;
use crate::upstream::UpstreamBody;

/// Bytes of an unread request body that are thrown away before its connection is closed.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// How long that may take.
const DRAIN_FOR: Duration = Duration::from_secs(5);

/// Why a response body broke off. The client sees a broken transfer, never a silent end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream broke off.
    #[error("the upstream broke off: {0}")]
    Upstream(hyper::Error),
    /// The upstream paused for too long.
    #[error("the upstream paused for too long")]
    Timeout,
    /// The client's body is malformed or broke off.
    #[error("the client's body: {0}")]
    Client(hyper::Error),
    /// The client paused for too long within its body.
    #[error("the client paused for too long within its body")]
    ClientTimeout,
    /// The shared fetch broke off.
    #[error("the shared fetch broke off")]
    Broken,
}

/// The body of a request to the upstream.
pub(crate) enum RequestBody {
    /// No body.
    Empty,
    /// The client's body, as it comes.
    Client(Box<ClientBody>),
}

/// A client's body, with a limit for its pauses.
///
/// Where the upstream answers without having read it, the rest is read and thrown away within
/// limits: closing on a client that is still sending would reset the connection, and the answer
/// with it.
pub(crate) struct ClientBody {
    incoming: Option<Incoming>,
    /// Dropped when the body has been read.
    read: Option<oneshot::Sender<()>>,
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl RequestBody {
    /// The client's body, with a receiver that resolves when it has been read or given up. With
    /// `idle`, a client that pauses for longer breaks its request.
    pub(crate) fn client(
        incoming: Incoming,
        idle: Option<Duration>,
    ) -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let ended = incoming.is_end_stream();
        let incoming = Some(incoming);
        let body = ClientBody { incoming, read: Some(sender), idle, timer: None, ended };
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
        if incoming.is_end_stream() || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.read.take();
            self.ended = true;
        }
        match (polled, self.idle) {
            (Poll::Pending, Some(idle)) => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                timer.as_mut().poll(cx).map(|()| Some(Err(BodyError::ClientTimeout)))
            }
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Ready(frame), _) => {
                self.timer = None;
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
            }
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take().filter(|_| !self.ended) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_FOR, discard(incoming)));
        }
    }
}

/// Reads what is left of a body and throws it away.
async fn discard(mut incoming: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    while let Some(Ok(frame)) = incoming.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
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

/// The body of a response to the client.
pub enum ResponseBody {
    /// Bytes at hand; empty once sent.
    Full(Bytes),
    /// Several pieces at hand, such as the parts of a multipart response.
    Pieces(std::collections::VecDeque<Bytes>),
    /// A fetch that may be shared with others.
    Shared(SharedBody),
    /// Straight from the upstream.
    Upstream(Box<StreamedBody>),
}

/// A body read from a shared fetch.
pub struct SharedBody {
    pub(crate) reader: Reader,
    pub(crate) length: Option<u64>,
    pub(crate) trailed: bool,
}

/// A body straight from the upstream.
pub struct StreamedBody(pub(crate) UpstreamBody);

impl ResponseBody {
    /// No body.
    pub fn empty() -> Self {
        Self::Full(Bytes::new())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|p| Ok(Frame::data(p)))),
            Self::Shared(body) => match body.reader.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    if let Some(left) = &mut body.length {
                        *left = left.saturating_sub(chunk.len() as u64);
                    }
                    Poll::Ready(Some(Ok(Frame::data(chunk))))
                }
                Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyError::Broken))),
                Poll::Ready(None) if body.trailed => Poll::Ready(None),
                Poll::Ready(None) => {
                    body.trailed = true;
                    Poll::Ready(body.reader.trailers().map(|t| Ok(Frame::trailers(t))))
                }
                Poll::Pending => Poll::Pending,
            },
            Self::Upstream(body) => Pin::new(&mut body.0).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
            Self::Shared(body) => body.length == Some(0),
            Self::Upstream(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Shared(body) => body.length.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Upstream(body) => body.0.size_hint(),
        }
    }
}
