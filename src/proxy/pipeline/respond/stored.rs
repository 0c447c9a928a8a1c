//! Responses from stored ones, and from a fetch that several requests share.

use std::sync::Arc;

use http::header::{AGE, CACHE_STATUS, CONTENT_LENGTH, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use outrigger_semantics::cache_status::{CACHE_NAME, CacheStatus, Forwarded};
use outrigger_semantics::range::ByteRange;
use outrigger_semantics::{UnixMillis, conditional};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use super::ranges::{apply_range, bounds, one_range};
use crate::body::{ResponseBody, SharedBody};
use crate::coalesce::flight::{Reader, SharedHead};
use crate::pipeline::request::RequestView;

/// `Cache-Status` of a response from a stored one.
pub(super) fn status(entry: &Entry, now: UnixMillis, outcome: Outcome) -> CacheStatus<'static> {
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
        key: None,
        detail: (outcome != Outcome::Hit).then(|| outcome.as_str()),
    }
}

/// The fields of a 304, if the client has this response already (RFC 9110 §13.2.2).
fn not_modified(
    request: RequestView<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Option<HeaderMap> {
    let asked = request.headers;
    let conditional = asked.contains_key(IF_NONE_MATCH) || asked.contains_key(IF_MODIFIED_SINCE);
    (status == StatusCode::OK && conditional && conditional::is_not_modified(asked, headers, now))
        .then(|| conditional::not_modified_headers(headers))
}

/// A response from a stored one: 304 where the client has it already, 206 for ranges.
pub(super) fn entry(
    request: RequestView<'_>,
    entry: &Entry,
    cache_status: HeaderValue,
) -> Response<ResponseBody> {
    let age = HeaderValue::from(entry.lifetimes.age_secs(request.now));
    let mut response = Response::new(ResponseBody::empty());
    if let Some(mut headers) = not_modified(request, entry.status, &entry.headers, request.now) {
        headers.insert(AGE, age);
        headers.insert(CACHE_STATUS, cache_status);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
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
    *response.status_mut() = entry.status;
    *response.headers_mut() = headers;
    let get = *request.method == Method::GET;
    let ranged = entry.status == StatusCode::OK && get && request.headers.contains_key(RANGE);
    if ranged && conditional::if_range_holds(request.headers, &entry.headers) {
        apply_range(&mut response, request.headers, &entry.body);
        return response;
    }
    if *request.method != Method::HEAD {
        *response.body_mut() = ResponseBody::Full(entry.body.clone());
    }
    response
}

/// A range out of a stored part, which covers it.
pub(super) fn part(
    request: RequestView<'_>,
    stored: &Entry,
    wanted: ByteRange,
    complete_length: u64,
    cache_status: HeaderValue,
) -> Response<ResponseBody> {
    let mut response = entry(request, stored, cache_status);
    let from = stored.part.map_or(0, |part| part.range.first);
    let piece = ByteRange { first: wanted.first - from, last: wanted.last - from };
    one_range(&mut response, stored.body.slice(bounds(piece)), wanted, complete_length);
    response
}

/// A response whose bytes come from a fetch that several requests share; `collapsed` if it was not
/// this one that led it.
pub(super) fn fetched(
    request: RequestView<'_>,
    reader: Reader,
    head: &Arc<SharedHead>,
    collapsed: bool,
    now: UnixMillis,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    if let Some(headers) = not_modified(request, head.status, &head.headers, now) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = headers;
        // Nobody may be left to read; the response is wanted in the store all the same.
        tokio::spawn(drain(reader));
        return response;
    }
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    *response.body_mut() = ResponseBody::Shared(SharedBody { reader, length, trailed: false });
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.clone();
    if collapsed {
        let headers = response.headers_mut();
        for name in &head.omit {
            headers.remove(name);
        }
        headers.insert(AGE, HeaderValue::from(head.lifetimes.age_secs(now)));
    }
    response
}

/// Reads a shared fetch to its end, for as long as it is for the store.
async fn drain(mut reader: Reader) {
    while reader.is_kept() {
        let Some(Ok(_)) = std::future::poll_fn(|cx| reader.poll_chunk(cx)).await else { return };
    }
}
