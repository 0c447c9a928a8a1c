//! The few responses that the proxy makes itself: a status and one line of text.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::body::response::ResponseBody;
use crate::error::UpstreamError;
use crate::grpc;
use crate::refusal::Refusal;

/// A response of the proxy itself: a status and one line of text.
fn own(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A request that was refused. The connection is closed, since its framing may be in doubt.
pub(super) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let mut response = own(refusal.status, format!("refused: {}\n", refusal.detail));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Nothing is stored and the client wants nothing else (RFC 9111 §5.2.1.7).
pub(super) fn only_if_cached() -> Response<ResponseBody> {
    own(StatusCode::GATEWAY_TIMEOUT, "nothing stored, and only-if-cached\n".to_owned())
}

/// The answer to a health check of Envoy: 200 when ready, else 503.
pub(crate) fn health(ready: bool) -> Response<ResponseBody> {
    if ready {
        return own(StatusCode::OK, "ready\n".to_owned());
    }
    own(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
}

/// A write that other pods must know of could not be announced.
pub(super) fn unannounced() -> Response<ResponseBody> {
    let text = "the purge log cannot be reached\n".to_owned();
    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The upstream failed and there is nothing to serve instead.
pub(super) fn upstream_failed(
    request: &HeaderMap,
    error: &UpstreamError,
) -> Response<ResponseBody> {
    if matches!(error, UpstreamError::CallerDeadline { .. }) && grpc::is_call(request) {
        return grpc_deadline_exceeded();
    }
    if let UpstreamError::RequestBody { .. } = error {
        let mut response = own(error.status(), format!("refused: {}\n", error.code()));
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        return response;
    }
    let mut response = own(error.status(), format!("upstream: {}\n", error.code()));
    if let Some(secs) = error.retry_after_secs() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

/// A gRPC call whose own deadline is over. A client reads a plain 504 as `UNAVAILABLE`, which it may
/// send again; so it gets the status that its own clock would have given it (4, `DEADLINE_EXCEEDED`).
fn grpc_deadline_exceeded() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, grpc::APPLICATION_GRPC.clone());
    headers.insert(&grpc::STATUS, grpc::DEADLINE_EXCEEDED.clone());
    response
}
