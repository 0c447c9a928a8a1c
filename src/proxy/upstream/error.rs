//! Why the upstream gave no usable response, worded for the operator who must act.

use http::StatusCode;
use outrigger_telemetry::Outcome;

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
    /// The fetch was given up on our side, because nobody waited for it any more.
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
            Self::Aborted => "aborted",
        }
    }

    /// The status that a client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectTimeout { .. }
            | Self::FirstByteTimeout { .. }
            | Self::TotalTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The outcome that it means for a request.
    pub fn outcome(&self) -> Outcome {
        match self.status() {
            StatusCode::GATEWAY_TIMEOUT => Outcome::UpstreamTimeout,
            StatusCode::BAD_REQUEST => Outcome::Rejected,
            _ => Outcome::UpstreamError,
        }
    }
}
