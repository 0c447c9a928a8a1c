//! Bodies of responses on their way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
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
    /// The bytes of a fetch that other requests may read too. In a box, so that the responses of hits
    /// are not moved as something larger than they are.
    Flight(Box<FlightBody>),
    /// The body of an upstream response, streamed to this client alone.
    Upstream(Box<StreamedBody>),
}

/// A body that is read from a fetch under way.
pub struct FlightBody {
    pub(crate) reader: Reader,
    /// Bytes that are left out first: the response is a range.
    pub(crate) skip: u64,
    /// Bytes that are still to come, if the response says so.
    pub(crate) length: Option<u64>,
    /// Whether the trailers have been sent.
    pub(crate) trailed: bool,
    /// How it broke off, until that is said.
    pub(crate) broken: Broken,
}

impl FlightBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match ready!(self.reader.poll_chunk(cx)) {
                Some(Ok(mut chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    // Less than the length of the chunk, which is a usize.
                    chunk.advance(skipped as usize);
                    if let Some(left) = &mut self.length {
                        chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= chunk.len() as u64;
                    }
                    if !chunk.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                    if self.length == Some(0) {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(_)) => return self.broken.hold(BodyError::Broken, cx),
                None if self.trailed => return Poll::Ready(None),
                None => {
                    self.trailed = true;
                    let trailers = self.reader.trailers();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
            }
        }
    }
}

/// A body that is streamed from the upstream.
pub struct StreamedBody(pub(crate) UpstreamBody, pub(crate) Broken);

/// The error of a body, said one turn after it is known. hyper drops what it has not written yet when a
/// body fails, so that a client would get a closed connection in place of a head and the first bytes.
#[derive(Default)]
pub struct Broken(Option<BodyError>);

impl Broken {
    /// What has been found out before, if it has not been said yet.
    fn due(&mut self) -> Option<BodyError> {
        self.0.take()
    }

    /// Keeps an error for the next turn.
    fn hold<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        self.0 = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ResponseBody {
    fn broken(&mut self) -> Option<&mut Broken> {
        match self {
            Self::Flight(body) => Some(&mut body.broken),
            Self::Upstream(body) => Some(&mut body.1),
            Self::Full(_) | Self::Pieces(_) => None,
        }
    }

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
        let this = self.get_mut();
        if let Some(error) = this.broken().and_then(Broken::due) {
            return Poll::Ready(Some(Err(error)));
        }
        match this {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|p| Ok(Frame::data(p)))),
            Self::Flight(body) => body.poll_frame(cx),
            Self::Upstream(body) => match Pin::new(&mut body.0).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => body.1.hold(error, cx),
                polled => polled,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
            Self::Flight(body) => body.length == Some(0),
            // An error that is still to be said is no end.
            Self::Upstream(body) => body.1.0.is_none() && body.0.is_end_stream(),
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
