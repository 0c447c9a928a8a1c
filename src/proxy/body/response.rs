//! Bodies of responses on their way to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::body::BodyError;
use crate::coalesce::flight::Reader;
use crate::upstream::UpstreamBody;

/// The body of a response to the client.
pub enum ResponseBody {
    /// One piece in memory; empty once it was sent.
    Full(Bytes),
    /// Several pieces in memory, such as the parts of a multipart response.
    Pieces(std::collections::VecDeque<Bytes>),
    /// The bytes of a fetch that other requests may read too.
    Flight(FlightBody),
    /// The body of an upstream response, streamed to this client alone.
    Upstream(Box<StreamedBody>),
}

/// A body that is read from a fetch under way.
pub struct FlightBody {
    pub(crate) reader: Reader,
    /// Bytes that are still to come, if the response says so.
    pub(crate) length: Option<u64>,
    /// Whether the trailers have been sent.
    pub(crate) trailed: bool,
}

/// A body that is streamed from the upstream.
pub struct StreamedBody(pub(crate) UpstreamBody);

impl ResponseBody {
    /// A response without a body.
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
            Self::Flight(body) => match body.reader.poll_chunk(cx) {
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
            Self::Flight(body) => body.length == Some(0),
            Self::Upstream(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Flight(body) => body.length.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Upstream(body) => body.0.size_hint(),
        }
    }
}
