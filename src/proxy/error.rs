//! Why a request to the upstream gave no usable response. Texts are for the operator who must act,
//! codes are stable names for machines. Guard and upstream both produce these errors, so this file
//! knows neither of them.

use std::time::Duration;

use http::StatusCode;
use outrigger_policy::guard::FailureKind;
use outrigger_telemetry::Outcome;

/// The limit that kept a request from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// No place is free, and the queue for one is full.
    QueueFull,
    /// A more important request took its place in the queue.
    Displaced,
    /// It waited in the queue for `queueTimeout`.
    QueueTimeout,
    /// No place is free, and a refresh does not wait for one.
    NoRoomForRefresh,
    /// As many misses are under way as `misses.max` allows.
    Misses,
    /// As many misses of this client are under way as `misses.perClient` allows.
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

/// A request to the upstream that gave no usable response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No endpoint is known or healthy.
    #[error("no endpoint of the upstream is available; check upstream.url and its health checks")]
    NoEndpoint,
    /// The connection could not be opened.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// The address of the endpoint.
        endpoint: String,
        /// The cause, as the operating system or the TLS library words it.
        reason: String,
    },
    /// Connecting, or the TLS handshake, took too long.
    #[error("connecting to {endpoint} took longer than {millis} ms")]
    ConnectTimeout {
        /// The address of the endpoint.
        endpoint: String,
        /// The limit in milliseconds.
        millis: u64,
    },
    /// The response head did not come in time.
    #[error("{endpoint} sent no response head within {millis} ms")]
    FirstByteTimeout {
        /// The address of the endpoint.
        endpoint: String,
        /// The limit in milliseconds.
        millis: u64,
    },
    /// The whole exchange took too long.
    #[error("the request took longer than {millis} ms in all")]
    TotalTimeout {
        /// The limit in milliseconds.
        millis: u64,
    },
    /// The connection broke before anything of the response could be passed on.
    #[error("{endpoint} broke off before the content of its response: {reason}")]
    Reset {
        /// The address of the endpoint.
        endpoint: String,
        /// The cause, as the HTTP library words it.
        reason: String,
    },
    /// What came back is not an HTTP response, or one that cannot be passed on.
    #[error("{endpoint} sent an invalid response: {reason}")]
    Invalid {
        /// The address of the endpoint.
        endpoint: String,
        /// What is wrong with the response.
        reason: String,
    },
    /// The client's own body was malformed or broke off.
    #[error("the request body is malformed or broke off: {reason}")]
    RequestBody {
        /// What is wrong with the body.
        reason: String,
    },
    /// The caller's own time ran out.
    #[error("no response within the {millis} ms that the caller waits")]
    CallerDeadline {
        /// The time that the caller allowed, in milliseconds.
        millis: u64,
    },
    /// The circuit breaker is open.
    #[error("the circuit breaker \"{breaker}\" is open for {} ms more", retry_after.as_millis())]
    BreakerOpen {
        /// The name of the breaker.
        breaker: String,
        /// Time until the breaker lets a probe through.
        retry_after: Duration,
    },
    /// A limit on requests to the upstream is used up.
    #[error("not sent to the upstream: {}", .0.reason())]
    Overload(Overload),
    /// Outrigger gave the fetch up, since no client waited for it any more.
    #[error("the fetch was given up")]
    Aborted,
}

impl UpstreamError {
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

    /// The status of the response that a client gets for it.
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

    /// The outcome of a request that fails with it.
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

    /// The outcome of a request that gets a stale response in place of this error.
    pub fn stale_outcome(&self) -> Outcome {
        match self {
            Self::BreakerOpen { .. } => Outcome::StaleBreakerOpen,
            Self::Overload(_) => Outcome::StaleOverload,
            _ => Outcome::StaleIfError,
        }
    }

    /// The kind of failure, as policy names it; `None` if the upstream did not fail.
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

    /// Whether the guard refused the request, so that nothing was sent.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::BreakerOpen { .. } | Self::Overload(_))
    }

    /// Whether the upstream may carry out what it was asked, now or later.
    pub fn may_take_effect(&self) -> bool {
        let unsent =
            matches!(self, Self::NoEndpoint | Self::Connect { .. } | Self::ConnectTimeout { .. });
        !unsent && !self.is_refusal()
    }

    /// Whether it concerns only the request that led a fetch, and not those that wait for it.
    pub fn is_the_leaders_own(&self) -> bool {
        matches!(
            self,
            Self::Aborted | Self::Overload(Overload::NoRoomForRefresh | Overload::ClientMisses)
        )
    }

    /// The value of `Retry-After` for the client, in whole seconds, at least one (RFC 9110 §10.2.3).
    /// `None` if nothing is known about it.
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
