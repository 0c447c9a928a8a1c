//! A response of the upstream, whose body keeps its connection and its deadlines.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outrigger_semantics::freshness::Exchange;
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::upstream::pool::Lease;

/// Head and body of a response.
pub(crate) struct UpstreamResponse {
    pub(crate) head: Parts,
    pub(crate) body: UpstreamBody,
    pub(crate) exchange: Exchange,
}

/// The body of a response: an idle timer, a deadline, and the connection to give back.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    idle: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        lease: Option<Lease>,
        idle: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        let mut body = UpstreamBody { incoming, lease, idle, deadline, timer: None, ended: false };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        self.ended = true;
        self.timer = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn next_deadline(&self) -> Instant {
        let idle = Instant::now() + self.idle;
        self.deadline.map_or(idle, |deadline| deadline.min(idle))
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.timer = None;
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.ended = true;
                self.lease = None;
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                // The timer is set only once the body makes us wait.
                let deadline = self.next_deadline();
                let timer =
                    self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                match timer.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.ended = true;
                        self.lease = None;
                        Poll::Ready(Some(Err(BodyError::Timeout)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
