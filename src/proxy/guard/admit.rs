//! Whether a request may be sent to the upstream: its breaker must not be open, and the concurrency
//! limit must have a place for it.

use std::time::Duration;

use outrigger_guard::{Acquired, Permit, Rank, Sample, Shed};
use outrigger_policy::guard::{FailureKind, GuardRules};
use tokio::time::Instant;

use crate::guard::report::Report;
use crate::guard::routes::RouteGuard;
use crate::upstream::{Overload, UpstreamError};

/// How much a request needs the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A client waits, and others may use the response.
    Storable,
    /// A client waits for a response of its own.
    Client,
    /// No client waits: it is sent only if a place is free.
    Refresh,
}

/// Permission to send one request. Its result is reported through it.
#[derive(Debug)]
pub(crate) struct Pass {
    permit: Permit,
    pub(crate) report: Report,
}

impl Pass {
    /// The response head has arrived. The place is given back, since the body costs the upstream
    /// little.
    pub(crate) fn answered(self, status: u16) -> Report {
        let Pass { permit, mut report } = self;
        let took = report.head(status);
        let overloaded = matches!(status, 503 | 504);
        let sample = if overloaded { Sample::Overloaded } else { Sample::Answered(took) };
        permit.complete(sample, report.now());
        report
    }

    /// The request has failed without a response.
    pub(crate) fn failed(mut self, error: &UpstreamError) {
        let kind = error.kind();
        match error {
            UpstreamError::CallerDeadline { .. } => self.report.caller_gave_up(),
            _ => kind.into_iter().for_each(|kind| self.report.failed(kind)),
        }
        let overloaded = kind == Some(FailureKind::Timeout);
        let sample = if overloaded { Sample::Overloaded } else { Sample::Nothing };
        self.permit.complete(sample, self.report.now());
    }
}

impl RouteGuard {
    /// Why a request would not be sent now. Changes nothing.
    pub(crate) fn refusal(&self) -> Option<UpstreamError> {
        let breaker = self.breaker.as_ref()?;
        breaker.machine.rejects(self.watch.now()).map(|left| self.breaker_open(left))
    }

    fn breaker_open(&self, retry_after: Duration) -> UpstreamError {
        let name = self.breaker.as_ref().map_or("", |breaker| &*breaker.name);
        UpstreamError::BreakerOpen { breaker: name.to_owned(), retry_after }
    }

    /// Asks for permission to send a request. Without a free place it waits for one, at most until
    /// the `deadline`.
    ///
    /// # Errors
    /// The breaker is open, or no place became free.
    pub(crate) async fn admit(
        &self,
        urgency: Urgency,
        deadline: Option<Instant>,
    ) -> Result<Pass, UpstreamError> {
        let admitted = self.try_admit(urgency, deadline).await;
        if let Err(error) = &admitted {
            self.count_refused(error);
        }
        admitted
    }

    async fn try_admit(
        &self,
        urgency: Urgency,
        deadline: Option<Instant>,
    ) -> Result<Pass, UpstreamError> {
        // Looked at before as well: a place is no use behind an open breaker.
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let permit = self.place(urgency, deadline).await?;
        let ticket = match &self.breaker {
            None => None,
            Some(breaker) => match breaker.admit(&self.watch) {
                Ok(ticket) => Some(ticket),
                Err(left) => return Err(self.breaker_open(left)),
            },
        };
        let GuardRules { failures, slow_after, .. } = self.rules;
        Ok(Pass { permit, report: Report::new(failures, slow_after, ticket, &self.watch) })
    }

    async fn place(
        &self,
        urgency: Urgency,
        deadline: Option<Instant>,
    ) -> Result<Permit, UpstreamError> {
        if urgency == Urgency::Refresh {
            let permit = self.limiter.machine.try_acquire();
            return permit.ok_or(UpstreamError::Overload(Overload::NoRoomForRefresh));
        }
        let rank = Rank::new(self.rules.priority.level(), urgency == Urgency::Storable);
        let queued = match self.limiter.machine.acquire(rank) {
            Acquired::Permit(permit) => return Ok(permit),
            Acquired::Shed(_) => return Err(UpstreamError::Overload(Overload::QueueFull)),
            Acquired::Queued(queued) => queued,
        };
        let patience = Instant::now() + self.rules.concurrency.queue_for;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        match tokio::time::timeout_at(until, queued).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(Shed::Displaced | Shed::QueueFull)) => {
                Err(UpstreamError::Overload(Overload::Displaced))
            }
            Err(_) => Err(UpstreamError::Overload(Overload::QueueTimeout)),
        }
    }
}
