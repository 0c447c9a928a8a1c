//! The deadlines of one request to the upstream: those of its route, else those of the bootstrap
//! file, and the time that its caller has left.

use std::time::Duration;

use pingora_core::protocols::l4::socket::SocketAddr;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::UpstreamError;
use crate::guard::CallerDeadline;
use crate::upstream::request::UpstreamRequest;
use crate::upstream::settings::{Timeouts, UpstreamSettings};

/// The deadlines of a request, all its attempts included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Each attempt's own, the route's where it has any.
    pub(crate) timeouts: Timeouts,
    total: Option<Instant>,
    caller: Option<CallerDeadline>,
}

impl Deadlines {
    /// The deadlines of a call that begins now.
    pub(crate) fn of(call: &UpstreamRequest, settings: &UpstreamSettings) -> Self {
        let (route, usual) = (call.guard.rules.deadlines, settings.timeouts);
        let timeouts = Timeouts {
            connect_ms: route.connect_ms.unwrap_or(usual.connect_ms),
            tls_ms: route.tls_ms.unwrap_or(usual.tls_ms),
            first_byte_ms: route.first_byte_ms.unwrap_or(usual.first_byte_ms),
            between_bytes_ms: route.idle_ms.unwrap_or(usual.between_bytes_ms),
            total_ms: route.total_ms.or(usual.total_ms),
        };
        let total = timeouts.total_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        Deadlines { timeouts, total, caller: call.caller }
    }

    /// The end of all: the route's, or the caller's if that is sooner.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.total, self.caller.map(|caller| caller.at)].into_iter().flatten().min()
    }

    /// Longest pause within a body.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.timeouts.between_bytes_ms)
    }

    /// Ends with the whole request's time.
    pub(crate) async fn over(&self) -> UpstreamError {
        match self.deadline() {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
        match self.caller.filter(|_| self.is_the_callers()) {
            Some(caller) => UpstreamError::CallerDeadline { millis: caller.millis },
            None => UpstreamError::TotalTimeout { millis: self.timeouts.total_ms.unwrap_or(0) },
        }
    }

    /// Whether the deadline is the caller's and not the route's.
    pub(crate) fn is_the_callers(&self) -> bool {
        self.caller.is_some_and(|caller| self.total.is_none_or(|total| caller.at <= total))
    }

    /// Ends when the response head is overdue: the time counts from the end of the request body.
    pub(crate) fn first_byte(
        &self,
        body_sent: Option<oneshot::Receiver<()>>,
    ) -> impl Future<Output = ()> + use<> {
        let limit = Duration::from_millis(self.timeouts.first_byte_ms);
        async move {
            if let Some(sent) = body_sent {
                let _ = sent.await;
            }
            tokio::time::sleep(limit).await;
        }
    }

    /// No head came in time.
    pub(crate) fn no_first_byte(&self, endpoint: Option<&SocketAddr>) -> UpstreamError {
        UpstreamError::FirstByteTimeout {
            endpoint: endpoint.map_or_else(|| "the upstream".to_owned(), ToString::to_string),
            millis: self.timeouts.first_byte_ms,
        }
    }
}
