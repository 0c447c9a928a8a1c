//! Why the upstream gave no usable response, worded for the operator who must act.

use std::time::Duration;

use http::StatusCode;
use outrigger_policy::guard::FailureKind;
use outrigger_telemetry::Outcome;

/// Which limit on requests to the upstream is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// As many requests wait for a place as may.
    QueueFull,
    /// It waited, and a more important request took its place.
    Displaced,
    /// It waited for as long as it may.
    QueueTimeout,
    /// There is no place, and a refresh does not wait for one.
    NoRoomForRefresh,
    /// Too many misses are under way.
    Misses,
    /// Too many misses of this client are under way.
    ClientMisses,
}

impl Overload {
    fn code(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Displaced => "displaced",
            Self::QueueTimeout => "queue-timeout",
            Self::NoRoomForRefresh => "no-room",
            Self::Misses => "misses",
            Self::ClientMisses => "client-misses",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "guard.concurrency is used up, and its queue is full",
            Self::Displaced => "guard.concurrency is used up, and a more important request came",
            Self::QueueTimeout => {
                "guard.concurrency was used up for guard.concurrency.queueTimeout"
            }
            Self::NoRoomForRefresh => {
                "guard.concurrency is used up, and nobody waits for a refresh"
            }
            Self::Misses => "as many misses are under way as guard.misses.max",
            Self::ClientMisses => "as many misses of this client as guard.misses.perClient",
        }
    }
}

/// A failed upstream request.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No endpoint is known or healthy.
    #[error("no endpoint of the upstream is available; check upstream.url and its health checks")]
    NoEndpoint,
    /// The connection could not be opened.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// Connecting, or the TLS handshake, took too long.
    #[error("connecting to {endpoint} took longer than {millis} ms")]
    ConnectTimeout {
        /// Where to.
        endpoint: String,
        /// The limit.
        millis: u64,
    },
    /// The response head did not come in time.
    #[error("{endpoint} sent no response head within {millis} ms")]
    FirstByteTimeout {
        /// From where.
        endpoint: String,
        /// The limit.
        millis: u64,
    },
    /// The whole exchange took too long.
    #[error("the request took longer than {millis} ms in all")]
    TotalTimeout {
        /// The limit.
        millis: u64,
    },
    /// The connection broke before the response head.
    #[error("{endpoint} closed the connection before its response head: {reason}")]
    Reset {
        /// By whom.
        endpoint: String,
        /// How.
        reason: String,
    },
    /// What came back is not an HTTP response, or one that cannot be passed on.
    #[error("{endpoint} sent an invalid response: {reason}")]
    Invalid {
        /// Who sent it.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// The client's own body was malformed or broke off.
    #[error("the request body is malformed or broke off: {reason}")]
    RequestBody {
        /// What is wrong.
        reason: String,
    },
    /// The caller's own time ran out.
    #[error("no response within the {millis} ms that the caller waits")]
    CallerDeadline {
        /// What the caller allowed.
        millis: u64,
    },
    /// The circuit breaker is open.
    #[error("the circuit breaker \"{breaker}\" is open for {} ms more", retry_after.as_millis())]
    BreakerOpen {
        /// Which one.
        breaker: String,
        /// Until the next probe.
        retry_after: Duration,
    },
    /// A limit on requests to the upstream is used up.
    #[error("not sent to the upstream: {}", .0.reason())]
    Overload(Overload),
    /// The fetch was given up on our side, because nobody waited for it any more.
    #[error("the fetch was given up")]
    Aborted,
}

impl UpstreamError {
    /// A 101 to a request that did not ask for it (RFC 9110 §15.2.2).
    pub(crate) fn unwanted_switch(endpoint: &str) -> Self {
        let reason = "a 101 that nobody asked for".to_owned();
        UpstreamError::Invalid { endpoint: endpoint.to_owned(), reason }
    }

    /// The stable name used in `Cache-Status`, metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::Connect { .. } => "connect-failed",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::FirstByteTimeout { .. } => "first-byte-timeout",
            Self::TotalTimeout { .. } => "total-timeout",
            Self::Reset { .. } => "upstream-reset",
            Self::Invalid { .. } => "invalid-response",
            Self::RequestBody { .. } => "request-body",
            Self::CallerDeadline { .. } => "caller-deadline",
            Self::BreakerOpen { .. } => "breaker-open",
            Self::Overload(overload) => overload.code(),
            Self::Aborted => "aborted",
        }
    }

    /// The status that a client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint | Self::BreakerOpen { .. } | Self::Overload(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::CallerDeadline { .. }
            | Self::ConnectTimeout { .. }
            | Self::FirstByteTimeout { .. }
            | Self::TotalTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The outcome that it means for a request.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::BreakerOpen { .. } => Outcome::BreakerOpen,
            Self::Overload(_) => Outcome::Overload,
            _ => match self.status() {
                StatusCode::GATEWAY_TIMEOUT => Outcome::UpstreamTimeout,
                StatusCode::BAD_REQUEST => Outcome::Rejected,
                _ => Outcome::UpstreamError,
            },
        }
    }

    /// The outcome of a request for which a stale response stands in.
    pub fn stand_in(&self) -> Outcome {
        match self {
            Self::BreakerOpen { .. } => Outcome::StaleBreakerOpen,
            Self::Overload(_) => Outcome::StaleOverload,
            _ => Outcome::StaleIfError,
        }
    }

    /// How it failed, as policy names it; `None` if it is no failure of the upstream's.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::NoEndpoint | Self::Connect { .. } => Some(FailureKind::Connect),
            Self::ConnectTimeout { .. }
            | Self::FirstByteTimeout { .. }
            | Self::TotalTimeout { .. } => Some(FailureKind::Timeout),
            Self::Reset { .. } => Some(FailureKind::Reset),
            Self::Invalid { .. } => Some(FailureKind::Invalid),
            Self::RequestBody { .. }
            | Self::CallerDeadline { .. }
            | Self::BreakerOpen { .. }
            | Self::Overload(_)
            | Self::Aborted => None,
        }
    }

    /// Whether the guard refused it, so that the upstream has not heard of it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::BreakerOpen { .. } | Self::Overload(_))
    }

    /// Whether the upstream may carry out what it was asked, now or later.
    pub fn may_take_effect(&self) -> bool {
        let unsent =
            matches!(self, Self::NoEndpoint | Self::Connect { .. } | Self::ConnectTimeout { .. });
        !unsent && !self.is_refusal()
    }

    /// Whether it concerns the request that led a fetch, and not those that wait with it.
    pub fn is_the_leaders_own(&self) -> bool {
        matches!(
            self,
            Self::Aborted | Self::Overload(Overload::NoRoomForRefresh | Overload::ClientMisses)
        )
    }

    /// When a client should come back, whole seconds; `None` if nothing is known of that.
    pub fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::BreakerOpen { retry_after, .. } => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
            }
            Self::Overload(_) => Some(1),
            _ => None,
        }
        .map(|secs| secs.max(1))
    }
}
