//! A response of the upstream, whose body keeps its connection and its deadlines.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outrigger_policy::guard::FailureKind;
use outrigger_semantics::freshness::Exchange;
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::guard::Report;
use crate::headers::{ProxyIdentity, from_upstream};
use crate::upstream::deadlines::Deadlines;
use crate::upstream::pool::Loan;

/// Head and body of a response.
pub(crate) struct UpstreamResponse {
    /// The head, with the fields that may be passed on and those that a proxy adds.
    pub(crate) head: Parts,
    pub(crate) body: UpstreamBody,
    /// When the request was sent and its response head came.
    pub(crate) exchange: Exchange,
    /// Whether only the end of the connection ends the body (RFC 9112 §6.3): then a body without a
    /// byte cannot be told from one that broke off.
    pub(crate) ends_by_close: bool,
    /// The protocol that a 101 switches to. Its field is hop-by-hop, and so not in the head.
    pub(crate) protocol: Option<HeaderValue>,
}

impl UpstreamResponse {
    /// A response as it came. Its fields are cleaned here, once for all who use them.
    pub(crate) fn new(
        mut head: Parts,
        body: UpstreamBody,
        exchange: Exchange,
        identity: &ProxyIdentity,
    ) -> Self {
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = if switches { head.headers.get(UPGRADE).cloned() } else { None };
        let ends_by_close = head.version < Version::HTTP_2
            && !head.headers.contains_key(CONTENT_LENGTH)
            && !head.headers.contains_key(TRANSFER_ENCODING)
            && !body.is_end_stream();
        from_upstream(&mut head.headers, head.version, identity, exchange.responded_at);
        UpstreamResponse { head, body, exchange, ends_by_close, protocol }
    }
}

/// The body of a response: an idle timer, a deadline, the connection to give back, and what the
/// guard learns from how it ends.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Loan>,
    idle: Duration,
    deadline: Option<Instant>,
    /// Whether the deadline is the caller's: then it says nothing about the upstream.
    callers: bool,
    timer: Option<Pin<Box<Sleep>>>,
    report: Option<Report>,
    ended: bool,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        lease: Option<Loan>,
        deadlines: &Deadlines,
        report: Report,
    ) -> Self {
        let (idle, deadline) = (deadlines.idle(), deadlines.deadline());
        let mut body = UpstreamBody {
            incoming,
            lease,
            idle,
            deadline,
            callers: deadlines.is_the_callers(),
            timer: None,
            report: Some(report),
            ended: false,
        };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        self.ended = true;
        self.timer = None;
        self.report = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The body broke off.
    fn fail(&mut self, kind: FailureKind) {
        self.ended = true;
        self.lease = None;
        if let Some(mut report) = self.report.take() {
            report.failed(kind);
        }
    }

    /// The guard looks at gRPC statuses in trailers, and at how long a response goes on.
    fn look_at(&mut self, frame: &Frame<Bytes>) {
        let Some(report) = &mut self.report else { return };
        match frame.trailers_ref() {
            Some(trailers) => report.grpc(trailers),
            None => report.goes_on(),
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
                self.look_at(&frame);
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail(FailureKind::Reset);
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
                        if self.callers && self.deadline.is_some_and(|at| at <= Instant::now()) {
                            self.report = None;
                        }
                        self.fail(FailureKind::Timeout);
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
