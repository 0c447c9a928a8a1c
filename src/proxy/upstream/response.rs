//! A response of the upstream, whose body keeps its connection and its deadlines.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, TRANSFER_ENCODING,
    UPGRADE,
};
use http::response::Parts;
use http::{HeaderValue, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outrigger_policy::guard::FailureKind;
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::{UnixMillis, conditional};
use tokio::time::{Instant, Sleep};

use crate::body::BodyError;
use crate::guard::Report;
use crate::headers::{ProxyIdentity, clean_trailers, from_upstream};
use crate::upstream::deadlines::Deadlines;
use crate::upstream::pool::Loan;

/// How long a head waits for the beginning of a body whose length is known: without it, the client
/// can do little with the head.
const BEGIN_COUNTED: Duration = Duration::from_millis(250);
/// The same where the length is not known, as in a stream that may well begin with silence.
const BEGIN_OPEN: Duration = Duration::from_millis(20);

/// Whether a response is one whose head is waited for as such: events, or gRPC messages.
fn is_stream(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes();
    let is = |name: &[u8]| kind.get(..name.len()).is_some_and(|k| k.eq_ignore_ascii_case(name));
    is(b"text/event-stream") || is(b"application/grpc")
}

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
    /// The protocol that a 101 switches to, or those that a 426 asks for (RFC 9110 §15.5.22). The
    /// field is hop-by-hop, and so not in the head.
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
        let names_protocol =
            matches!(head.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
        let protocol = if names_protocol { head.headers.get(UPGRADE).cloned() } else { None };
        let ends_by_close = head.version < Version::HTTP_2
            && !head.headers.contains_key(CONTENT_LENGTH)
            && !head.headers.contains_key(TRANSFER_ENCODING)
            && body.follows_head;
        from_upstream(&mut head.headers, head.version, identity, exchange.responded_at);
        UpstreamResponse { head, body, exchange, ends_by_close, protocol }
    }

    /// Turns a 200 into a 304 without its body, if the conditions of a GET with these fields say so
    /// (RFC 9110 §13.1.2, §13.1.3).
    pub(crate) fn judge_conditions(&mut self, request: &HeaderMap, now: UnixMillis) {
        let conditional =
            request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE);
        if conditional
            && self.head.status == StatusCode::OK
            && conditional::is_not_modified(request, &self.head.headers, now)
        {
            self.head.status = StatusCode::NOT_MODIFIED;
            self.head.headers = conditional::not_modified_headers(&self.head.headers);
            self.body.leave_out();
        }
    }
}

/// The body of a response: an idle timer, a deadline, the connection to give back, and what the
/// guard learns from how it ends.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    /// Whether there is a body at all, be it an empty one.
    follows_head: bool,
    /// Content that came while it was awaited, not yet handed on; empty if there is none.
    first: Bytes,
    /// The same for a trailer section without content before it. A frame would be large to move.
    first_trailers: Option<Box<HeaderMap>>,
    lease: Option<Loan>,
    idle: Duration,
    deadline: Option<Instant>,
    /// Whether the deadline is the caller's: then it says nothing about the upstream.
    callers: bool,
    timer: Option<Pin<Box<Sleep>>>,
    report: Option<Report>,
    ended: bool,
    /// Whether nobody wants the body.
    left_out: bool,
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
            follows_head: !incoming.is_end_stream(),
            incoming,
            first: Bytes::new(),
            first_trailers: None,
            lease,
            idle,
            deadline,
            callers: deadlines.is_the_callers(),
            timer: None,
            report: Some(report),
            ended: false,
            left_out: false,
        };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// Waits a little for the beginning of the body. An upstream that breaks off after its head has
    /// then given no response, and the client gets an error, a stored response or that of another
    /// attempt: once the head has been passed on, it can only be cut off.
    ///
    /// # Errors
    /// The body broke off before anything of it came.
    pub(crate) async fn begin(&mut self, head: &Parts) -> Result<(), BodyError> {
        let wait = match self.incoming.size_hint().exact() {
            _ if self.ended || is_stream(&head.headers) => return Ok(()),
            Some(_) => BEGIN_COUNTED,
            None => BEGIN_OPEN,
        };
        // Most bodies have begun already: no timer for those.
        let at_once = std::future::poll_fn(|cx| Poll::Ready(self.poll_incoming(cx))).await;
        let first = match at_once {
            Poll::Ready(first) => first.transpose()?,
            Poll::Pending => {
                let until = Instant::now() + wait;
                let until = self.deadline.map_or(until, |deadline| deadline.min(until));
                let first = std::future::poll_fn(|cx| self.poll_incoming(cx));
                match tokio::time::timeout_at(until, first).await {
                    Ok(first) => first.transpose()?,
                    Err(_) => None,
                }
            }
        };
        match first.map(Frame::into_data) {
            Some(Ok(data)) => self.first = data,
            Some(Err(frame)) => self.first_trailers = frame.into_trailers().ok().map(Box::new),
            None => {}
        }
        Ok(())
    }

    /// The next frame, however long that takes.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(mut frame)) => {
                self.timer = None;
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                self.look_at(&frame);
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.fail(FailureKind::Reset);
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.timer = None;
        self.report = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// Nobody wants the rest.
    fn leave_out(&mut self) {
        self.ended = true;
        self.left_out = true;
        self.first = Bytes::new();
        self.first_trailers = None;
        self.timer = None;
        self.report = None;
        self.lease = None;
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
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        if let Some(trailers) = self.first_trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match self.poll_incoming(cx) {
            ready @ Poll::Ready(_) => ready,
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
        let handed_on = self.first.is_empty() && self.first_trailers.is_none();
        handed_on && (self.ended || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.left_out {
            return SizeHint::with_exact(0);
        }
        let mut hint = self.incoming.size_hint();
        let first = self.first.len() as u64;
        if first > 0 {
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(first));
            }
            hint.set_lower(hint.lower().saturating_add(first));
        }
        hint
    }
}
