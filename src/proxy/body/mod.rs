//! Message bodies: of requests to the upstream ([`request`]) and of responses to the client
//! ([`response`]).
//!
//! Both are streamed and never collected. Back-pressure comes from polling: a body is read only as
//! fast as its receiver takes it. The two halves are separate modules because `upstream` sends the
//! first and yields what the second is made of.

pub(crate) mod request;
pub(crate) mod response;

/// Why a body broke off. The receiver sees an incomplete transfer, never a regular end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection to the upstream failed within the body.
    #[error("the upstream broke off: {0}")]
    Upstream(hyper::Error),
    /// The upstream sent nothing for longer than its idle timeout.
    #[error("the upstream paused for too long")]
    Timeout,
    /// The body of the client's request is malformed or broke off.
    #[error("the client's body: {0}")]
    Client(hyper::Error),
    /// The client sent nothing for longer than `body_idle_ms_max`.
    #[error("the client paused for too long within its body")]
    ClientTimeout,
    /// The fetch that this request had joined broke off.
    #[error("the shared fetch broke off")]
    Broken,
}
