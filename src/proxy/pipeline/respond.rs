//! Making responses: from stored ones, and the few that the proxy says itself.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_STATUS, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use outrigger_policy::CacheKey;
use outrigger_semantics::cache_status::{CACHE_NAME, CacheStatus, Forwarded};
use outrigger_semantics::range::{self, ByteRange, Requested};
use outrigger_semantics::{UnixMillis, conditional};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::body::response::ResponseBody;
use crate::pipeline::job::Answer;
use crate::refusal::Refusal;
use crate::state::Shared;
use crate::upstream::UpstreamError;

/// A hit: the response to a request from a stored one, on the fast path.
pub(crate) fn from_entry<B>(
    shared: &Shared,
    entry: &Entry,
    request: &Request<B>,
    now: UnixMillis,
    outcome: Outcome,
) -> Response<ResponseBody> {
    let status = CacheStatus {
        hit: true,
        ttl: Some(entry.lifetimes.ttl_secs(now)),
        detail: detail_of(outcome),
        ..CacheStatus::default()
    };
    let value = if shared.settings.show_key {
        let key = String::from_utf8_lossy(&entry.key).replace('\n', " ");
        CacheStatus { key: Some(&key), ..status }.to_value()
    } else {
        status.to_value()
    };
    serve_entry(entry, request.method(), request.headers(), now, value)
}

fn detail_of(outcome: Outcome) -> Option<&'static str> {
    (outcome != Outcome::Hit).then(|| outcome.as_str())
}

/// `Cache-Status` of a response from a stored one that came about in a slower way.
pub(crate) fn status_of_entry(
    shared: &Shared,
    entry: &Entry,
    now: UnixMillis,
    outcome: Outcome,
    key: &CacheKey,
) -> HeaderValue {
    let shown = shared.settings.show_key.then(|| key.display());
    let (hit, fwd, fwd_status) = match outcome {
        Outcome::Revalidated => (false, Some(Forwarded::Stale), Some(304)),
        Outcome::StaleIfError => (false, Some(Forwarded::Stale), None),
        _ => (true, None, None),
    };
    CacheStatus {
        hit,
        fwd,
        fwd_status,
        ttl: Some(entry.lifetimes.ttl_secs(now)),
        stored: outcome == Outcome::Revalidated,
        collapsed: outcome == Outcome::Collapsed,
        key: shown.as_deref(),
        detail: detail_of(outcome),
    }
    .to_value()
}

/// A response from a stored one: 304 where the client has it already, 206 for ranges.
pub(crate) fn serve_entry(
    entry: &Entry,
    method: &Method,
    request: &HeaderMap,
    now: UnixMillis,
    cache_status: HeaderValue,
) -> Response<ResponseBody> {
    let age = HeaderValue::from(entry.lifetimes.age_secs(now));
    let ok = entry.status == StatusCode::OK;
    let conditional =
        request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE);
    if ok && conditional && conditional::is_not_modified(request, &entry.headers, now) {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        let mut headers = conditional::not_modified_headers(&entry.headers);
        headers.insert(AGE, age);
        headers.insert(CACHE_STATUS, cache_status);
        *response.headers_mut() = headers;
        return response;
    }
    let mut headers = entry.headers.clone();
    headers.insert(AGE, age);
    match headers.get(CACHE_STATUS) {
        // The place kept for us, unless a cache before us has spoken (RFC 9211 §2).
        Some(have) if have.as_bytes() != CACHE_NAME.as_bytes() => {
            headers.append(CACHE_STATUS, cache_status);
        }
        _ => {
            headers.insert(CACHE_STATUS, cache_status);
        }
    }
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = entry.status;
    *response.headers_mut() = headers;
    let ranged = ok && *method == Method::GET && request.contains_key(RANGE);
    if ranged && conditional::if_range_holds(request, &entry.headers) {
        apply_range(&mut response, request, &entry.body);
        return response;
    }
    if *method != Method::HEAD {
        *response.body_mut() = ResponseBody::Full(entry.body.clone());
    }
    response
}

/// Turns a whole response into the ranges that were asked for (RFC 9110 §14, §15.3.7).
fn apply_range(response: &mut Response<ResponseBody>, request: &HeaderMap, body: &Bytes) {
    let length = body.len() as u64;
    match range::resolve(request, length) {
        Requested::Whole => *response.body_mut() = ResponseBody::Full(body.clone()),
        Requested::Unsatisfiable => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let headers = response.headers_mut();
            headers.remove(CONTENT_TYPE);
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            set(headers, CONTENT_RANGE, format!("bytes */{length}"));
        }
        Requested::Ranges(ranges) => match ranges[..] {
            [range] => one_range(response, body.slice(bounds(range)), range, length),
            _ => several_ranges(response, body, &ranges),
        },
    }
}

/// A 206 with one range.
pub(crate) fn one_range(
    response: &mut Response<ResponseBody>,
    piece: Bytes,
    range: ByteRange,
    length: u64,
) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(piece.len()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, CONTENT_RANGE, format!("bytes {}-{}/{length}", range.first, range.last));
    *response.body_mut() = ResponseBody::Full(piece);
}

fn bounds(range: ByteRange) -> std::ops::Range<usize> {
    // Ranges were cut to the length of the body, which is a usize.
    range.first as usize..range.last as usize + 1
}

fn several_ranges(response: &mut Response<ResponseBody>, body: &Bytes, ranges: &[ByteRange]) {
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let kind = response.headers().get(CONTENT_TYPE).cloned();
    let mut pieces = VecDeque::new();
    for range in ranges {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(kind) = &kind {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let line =
            format!("Content-Range: bytes {}-{}/{}\r\n\r\n", range.first, range.last, body.len());
        head.extend_from_slice(line.as_bytes());
        pieces.push_back(Bytes::from(head));
        pieces.push_back(body.slice(bounds(*range)));
    }
    pieces.push_back(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let length: usize = pieces.iter().map(Bytes::len).sum();
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    set(headers, CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    *response.body_mut() = ResponseBody::Pieces(pieces);
}

fn set(headers: &mut HeaderMap, name: http::HeaderName, text: String) {
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(name, value);
    }
}

/// Appends our member to `Cache-Status`.
pub(crate) fn append_status(headers: &mut HeaderMap, status: &CacheStatus<'_>) {
    headers.append(CACHE_STATUS, status.to_value());
}

/// A response of the proxy itself: a status and one line of text.
fn own(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A request that was refused. The connection is closed, since its framing may be in doubt.
pub(crate) fn refused(refusal: Refusal) -> Answer {
    let mut response = own(refusal.status, format!("refused: {}\n", refusal.detail));
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    let status = CacheStatus { detail: Some(refusal.detail), ..CacheStatus::default() };
    append_status(response.headers_mut(), &status);
    Answer::new(response, refusal.outcome)
}

/// Nothing is stored and the client wants nothing else (RFC 9111 §5.2.1.7).
pub(crate) fn only_if_cached() -> Response<ResponseBody> {
    own(StatusCode::GATEWAY_TIMEOUT, "nothing stored, and only-if-cached\n".to_owned())
}

/// Whether this instance wants requests.
pub(crate) fn health(ready: bool) -> Response<ResponseBody> {
    if ready {
        return own(StatusCode::OK, "ready\n".to_owned());
    }
    own(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
}

/// Something that the request needs is not there at the moment.
pub(crate) fn unavailable(why: &str) -> Response<ResponseBody> {
    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The upstream failed and there is nothing to serve instead. The one place that maps its errors
/// to responses.
pub(crate) fn upstream_failed(error: &UpstreamError) -> Response<ResponseBody> {
    if let UpstreamError::RequestBody { .. } = error {
        let mut response = own(error.status(), format!("refused: {}\n", error.code()));
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
        return response;
    }
    let mut response = own(error.status(), format!("upstream: {}\n", error.code()));
    if let Some(secs) = error.retry_after_secs() {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged(value: &'static str, body: &'static [u8]) -> Response<ResponseBody> {
        let mut request = HeaderMap::new();
        request.insert(RANGE, HeaderValue::from_static(value));
        let mut response = Response::new(ResponseBody::empty());
        apply_range(&mut response, &request, &Bytes::from_static(body));
        response
    }

    #[test]
    fn one_range_is_cut_out() {
        let response = ranged("bytes=2-3", b"012345");
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes 2-3/6");
        assert!(matches!(response.body(), ResponseBody::Full(piece) if piece == "23"));
    }

    #[test]
    fn several_ranges_become_a_multipart() {
        let response = ranged("bytes=0-0,2-2", b"012345");
        let ResponseBody::Pieces(pieces) = response.body() else { panic!("not in pieces") };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        assert_eq!(response.headers()[CONTENT_LENGTH], length.to_string());
        assert_eq!(pieces.len(), 5);
    }

    #[test]
    fn outside_is_416_with_the_length() {
        let response = ranged("bytes=9-", b"012345");
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */6");
    }
}
