//! Requests that are answered without being forwarded.
//!
//! A type of its own, so that the checks of `mesh` and of the pipeline's first stage can return the
//! same one without knowing each other.

use http::StatusCode;
use outrigger_telemetry::Outcome;

/// Why a request is not forwarded, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Status of the response.
    pub(crate) status: StatusCode,
    /// Outcome for metrics, access log and span.
    pub(crate) outcome: Outcome,
    /// Stable name of the reason, in `Cache-Status` as `detail`.
    pub(crate) detail: &'static str,
}

impl Refusal {
    /// The request is malformed: 400.
    pub(crate) const fn bad_request(detail: &'static str) -> Self {
        Self::rejected(StatusCode::BAD_REQUEST, detail)
    }

    /// The request is rejected with a status of its own.
    pub(crate) const fn rejected(status: StatusCode, detail: &'static str) -> Self {
        Refusal { status, outcome: Outcome::Rejected, detail }
    }

    /// The request has been here before (RFC 8586): 508.
    pub(crate) const fn looping(detail: &'static str) -> Self {
        Refusal { status: StatusCode::LOOP_DETECTED, outcome: Outcome::Loop, detail }
    }
}
