//! What the proxy has to know of gRPC over HTTP/2, which it passes through like any other request:
//! which requests are calls, and the status by which a client learns of its own deadline.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

/// The field of a call's status; in the head where a response has nothing else ("Trailers-Only").
pub(crate) static STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The status `DEADLINE_EXCEEDED`.
pub(crate) static DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");
/// The content type of a call and of its response.
pub(crate) static APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether a request is a call, by its content type (gRPC over HTTP/2, "Requests").
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(APPLICATION_GRPC.as_bytes()))
}
