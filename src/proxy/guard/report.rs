//! What the circuit breakers learn from one request.
//!
//! A report is settled when it is dropped, so that no path through a request can forget it. Nothing
//! is learned if there was neither an answer nor a failure of the upstream, for instance because
//! the client left.

use std::sync::Arc;
use std::time::Duration;

use outrigger_guard::{Breaker, Ticket, TicketResult};
use outrigger_policy::guard::{FailureKind, FailureSet};

use crate::grpc;
use crate::guard::ejections::Ejections;
use crate::guard::revalidation::RevalidationWatch;

/// A response body that takes longer is a stream: the request counts without waiting for its end.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// A circuit breaker with what is needed to report its changes.
#[derive(Debug)]
pub(crate) struct NamedBreaker {
    pub(crate) name: Arc<str>,
    pub(crate) machine: Breaker,
    /// For the breaker of an endpoint: limits how many endpoints are ejected at a time.
    pub(crate) ejections: Option<Arc<Ejections>>,
}

impl NamedBreaker {
    /// Asks for a ticket.
    ///
    /// # Errors
    /// The breaker is open; the error is the time until it may be asked again.
    pub(crate) fn admit(
        self: &Arc<Self>,
        watch: &Arc<RevalidationWatch>,
    ) -> Result<Pending, Duration> {
        let admitted = self.machine.admit(watch.now());
        if let Some(change) = &admitted.transition {
            self.report(watch, change);
        }
        admitted.ticket.map(|ticket| Pending {
            breaker: Arc::clone(self),
            watch: Arc::clone(watch),
            ticket: Some(ticket),
            result: TicketResult::Unknown,
        })
    }

    /// Reports a change of its state.
    pub(crate) fn report(&self, watch: &RevalidationWatch, change: &outrigger_guard::Transition) {
        let endpoint = self.ejections.is_some().then_some(&*self.name);
        watch.transition(&self.name, endpoint, change);
        if let Some(ejections) = &self.ejections {
            ejections.changed(&self.name, change.to);
        }
    }
}

/// A ticket whose result is outstanding; it is settled when dropped.
#[derive(Debug)]
pub(crate) struct Pending {
    breaker: Arc<NamedBreaker>,
    watch: Arc<RevalidationWatch>,
    ticket: Option<Ticket>,
    result: TicketResult,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let breaker = &self.breaker;
        let may_open =
            || breaker.ejections.as_ref().is_none_or(|ejections| ejections.reserve(&breaker.name));
        let (now, jitter) = (self.watch.now(), fastrand::f64());
        if let Some(change) = breaker.machine.settle(ticket, self.result, now, jitter, may_open) {
            breaker.report(&self.watch, &change);
        }
    }
}

/// The result of one request, as far as it is known.
#[derive(Debug)]
pub(crate) struct Report {
    failures: FailureSet,
    slow_after: Duration,
    upstream: Option<Pending>,
    endpoint: Option<Pending>,
    watch: Arc<RevalidationWatch>,
    sent: Duration,
    /// When the response head arrived.
    head: Option<Duration>,
}

impl Report {
    pub(crate) fn new(
        failures: FailureSet,
        slow_after: Duration,
        upstream: Option<Pending>,
        watch: &Arc<RevalidationWatch>,
    ) -> Self {
        let (sent, watch) = (watch.now(), Arc::clone(watch));
        Report { failures, slow_after, upstream, endpoint: None, watch, sent, head: None }
    }

    /// Sets the endpoint that the request is sent to, in place of one that has failed before.
    pub(crate) fn goes_to(&mut self, endpoint: Option<Pending>) {
        self.endpoint = endpoint;
    }

    /// Reports an endpoint that could not be connected to; another one is tried.
    pub(crate) fn endpoint_failed(&mut self, kind: FailureKind) {
        if let Some(mut endpoint) = self.endpoint.take()
            && self.failures.contains(kind)
        {
            endpoint.result = TicketResult::Failed;
        }
    }

    /// Now, by the clock of the guards.
    pub(crate) fn now(&self) -> Duration {
        self.watch.now()
    }

    fn decide(&mut self, result: TicketResult) {
        for pending in [&mut self.upstream, &mut self.endpoint].into_iter().flatten() {
            pending.result = result;
        }
    }

    fn settle(&mut self) {
        self.upstream = None;
        self.endpoint = None;
    }

    /// Reports a failure of the request, if the policy counts this kind.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        if self.failures.contains(kind) {
            self.decide(TicketResult::Failed);
            self.settle();
        }
    }

    /// Reports that the caller's deadline has passed. It is a failure of the upstream only if that
    /// had as long as a slow response takes.
    pub(crate) fn caller_gave_up(&mut self) {
        if self.watch.now().saturating_sub(self.sent) >= self.slow_after {
            self.failed(FailureKind::Timeout);
        }
    }

    /// Reports the response head; returns the time that it took.
    pub(crate) fn head(&mut self, status: u16) -> Duration {
        let now = self.watch.now();
        let took = now.saturating_sub(self.sent);
        self.head = Some(now);
        self.decide(TicketResult::Succeeded { slow: took > self.slow_after });
        self.failed(FailureKind::Status(status));
        took
    }

    /// Reports the gRPC status in the head or the trailers, if there is one.
    pub(crate) fn grpc(&mut self, headers: &http::HeaderMap) {
        if !self.failures.looks_at_grpc() {
            return;
        }
        let status = headers.get(&grpc::STATUS).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(code) = status {
            self.failed(FailureKind::Grpc(code));
        }
    }

    /// Reports bytes of the body. A response that has become a stream counts now.
    pub(crate) fn goes_on(&mut self) {
        let Some(head) = self.head.filter(|_| self.upstream.is_some() || self.endpoint.is_some())
        else {
            return;
        };
        if self.watch.now().saturating_sub(head) > STREAM_AFTER {
            self.settle();
        }
    }
}
