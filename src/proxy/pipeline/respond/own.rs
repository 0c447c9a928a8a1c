//! The few responses that the proxy makes itself: a status and one line of text.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION,
    RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::body::response::ResponseBody;
use crate::error::UpstreamError;
use crate::grpc;
use crate::mesh::is_ours;
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

/// The answer to a TRACE or OPTIONS that may go no further (RFC 9110 §7.6.2). TRACE is told what
/// arrived here, without credentials and what only the mesh may know (§9.3.8).
pub(super) fn last_hop<B>(request: &Request<B>) -> Response<ResponseBody> {
    if *request.method() != Method::TRACE {
        let mut response = own(StatusCode::OK, String::new());
        response.headers_mut().remove(CONTENT_TYPE);
        return response;
    }
    const WITHHELD: [HeaderName; 4] = [
        AUTHORIZATION,
        COOKIE,
        PROXY_AUTHORIZATION,
        HeaderName::from_static("x-forwarded-client-cert"),
    ];
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("TRACE {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in request.headers() {
        if !WITHHELD.contains(name) && !is_ours(name) {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"\r\n");
    let mut response = Response::new(ResponseBody::Full(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
