//! From the fate of one request to what its breakers learn from it.
//!
//! A report is settled when it is dropped, so that no way out of a request can forget it: with
//! nothing learned if there was no answer and no failure of the upstream's, for instance because
//! the client left.

use std::sync::Arc;
use std::time::Duration;

use outrigger_guard::{Breaker, Ticket, TicketResult};
use outrigger_policy::guard::{FailureKind, FailureSet};

use crate::guard::watch::Watch;
use crate::upstream::Ejections;

/// A response that takes longer than this counts without waiting for its end: it is a stream.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// A breaker with what is needed to tell of it.
#[derive(Debug)]
pub(crate) struct NamedBreaker {
    pub(crate) name: Arc<str>,
    pub(crate) machine: Breaker,
    /// Set for the breaker of an endpoint: how many endpoints may be left out at a time.
    pub(crate) ejections: Option<Arc<Ejections>>,
}

impl NamedBreaker {
    /// Asks for a ticket; `Err` with the time to stay away.
    pub(crate) fn admit(self: &Arc<Self>, watch: &Arc<Watch>) -> Result<Pending, Duration> {
        let admitted = self.machine.admit(watch.now());
        if let Some(change) = &admitted.transition {
            self.tell(watch, change);
        }
        admitted.ticket.map(|ticket| Pending {
            breaker: Arc::clone(self),
            watch: Arc::clone(watch),
            ticket: Some(ticket),
            result: TicketResult::Unknown,
        })
    }

    pub(crate) fn tell(&self, watch: &Watch, change: &outrigger_guard::Transition) {
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
    watch: Arc<Watch>,
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
            breaker.tell(&self.watch, &change);
        }
    }
}

/// What is known about how a request turns out.
#[derive(Debug)]
pub(crate) struct Report {
    failures: FailureSet,
    slow_after: Duration,
    upstream: Option<Pending>,
    endpoint: Option<Pending>,
    watch: Arc<Watch>,
    sent: Duration,
    /// When the response head was there.
    head: Option<Duration>,
}

impl Report {
    pub(crate) fn new(
        failures: FailureSet,
        slow_after: Duration,
        upstream: Option<Pending>,
        watch: &Arc<Watch>,
    ) -> Self {
        let (sent, watch) = (watch.now(), Arc::clone(watch));
        Report { failures, slow_after, upstream, endpoint: None, watch, sent, head: None }
    }

    /// The endpoint that the request goes to. One that it was meant for before has failed.
    pub(crate) fn goes_to(&mut self, endpoint: Option<Pending>) {
        self.endpoint = endpoint;
    }

    /// An endpoint could not be connected to; another one is tried.
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

    /// The request failed in this way.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        if self.failures.contains(kind) {
            self.decide(TicketResult::Failed);
            self.settle();
        }
    }

    /// The caller's time ran out. That is the upstream's failure only if it had a fair chance.
    pub(crate) fn caller_gave_up(&mut self) {
        if self.watch.now().saturating_sub(self.sent) >= self.slow_after {
            self.failed(FailureKind::Timeout);
        }
    }

    /// The response head is there; how long it took.
    pub(crate) fn head(&mut self, status: u16) -> Duration {
        let now = self.watch.now();
        let took = now.saturating_sub(self.sent);
        self.head = Some(now);
        self.decide(TicketResult::Succeeded { slow: took > self.slow_after });
        self.failed(FailureKind::Status(status));
        took
    }

    /// A gRPC status, from the head or the trailers.
    pub(crate) fn grpc(&mut self, headers: &http::HeaderMap) {
        if !self.failures.looks_at_grpc() {
            return;
        }
        let status = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(code) = status {
            self.failed(FailureKind::Grpc(code));
        }
    }

    /// Bytes of the body have come: a response that goes on for long counts now.
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
