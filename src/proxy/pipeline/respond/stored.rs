//! Responses from stored ones, and from a fetch that several requests share.

use std::sync::Arc;

use http::header::{AGE, CACHE_STATUS, CONTENT_LENGTH, Entry as HeaderEntry, HeaderMap};
use http::{HeaderValue, Method, Response, StatusCode};
use outrigger_semantics::cache_status::CACHE_NAME;
use outrigger_semantics::conditional::{self, Selection};
use outrigger_semantics::range::ByteRange;
use outrigger_store::Entry;

use super::ranges::{bounds, head_of_range, one_range, send, unsatisfiable};
use crate::body::response::{Broken, FlightBody, ResponseBody};
use crate::coalesce::flight::{FlightHead, Reader};
use crate::pipeline::request::RequestView;

/// A response from a stored one: 304 where the client has it already, 206 for ranges.
pub(super) fn entry(
    request: RequestView<'_>,
    entry: &Entry,
    cache_status: HeaderValue,
) -> Response<ResponseBody> {
    let RequestView { method, headers, now, conditional, .. } = request;
    let age = HeaderValue::from(entry.lifetimes.age_secs(now));
    let length = Some(entry.body.len() as u64);
    let mut response = Response::new(ResponseBody::empty());
    let selected = match conditional {
        true => conditional::select(method, headers, entry.status, &entry.headers, length, now),
        false => Selection::Whole,
    };
    if selected == Selection::NotModified {
        let mut headers = conditional::not_modified_headers(&entry.headers);
        headers.insert(AGE, age);
        add_status(&mut headers, cache_status);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = headers;
        return response;
    }
    let mut headers = entry.headers.clone();
    headers.insert(AGE, age);
    add_status(&mut headers, cache_status);
    *response.status_mut() = entry.status;
    *response.headers_mut() = headers;
    if *method != Method::HEAD {
        send(&mut response, &entry.body, selected);
    }
    response
}

/// Says what we did in the place kept for it, or after a cache before us (RFC 9211 §2).
fn add_status(headers: &mut HeaderMap, cache_status: HeaderValue) {
    match headers.entry(CACHE_STATUS) {
        HeaderEntry::Occupied(mut have) if have.get().as_bytes() != CACHE_NAME.as_bytes() => {
            have.append(cache_status);
        }
        HeaderEntry::Occupied(mut kept) => {
            kept.insert(cache_status);
        }
        HeaderEntry::Vacant(place) => {
            place.insert(cache_status);
        }
    }
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
    head: &Arc<FlightHead>,
    collapsed: bool,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let RequestView { method, headers, .. } = request;
    let now = request.shared.clock.now();
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let selected = conditional::select(method, headers, head.status, &head.headers, length, now);
    *response.status_mut() = head.status;
    let mut body =
        FlightBody { reader, skip: 0, length, trailed: false, broken: Broken::default() };
    match (selected, length) {
        (Selection::NotModified, _) => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = conditional::not_modified_headers(&head.headers);
            // Nobody may be left to read; the response is wanted in the store all the same.
            tokio::spawn(drain(body.reader));
            return response;
        }
        (Selection::Unsatisfiable, Some(length)) => {
            *response.headers_mut() = head.headers.clone();
            unsatisfiable(&mut response, length);
            tokio::spawn(drain(body.reader));
        }
        // Several ranges take the whole body first; the client gets that.
        (Selection::Ranges(ranges), Some(length)) if ranges.len() == 1 => {
            *response.headers_mut() = head.headers.clone();
            head_of_range(&mut response, ranges[0], length);
            body.skip = ranges[0].first;
            body.length = Some(ranges[0].count());
            *response.body_mut() = ResponseBody::Flight(Box::new(body));
        }
        _ => {
            *response.headers_mut() = head.headers.clone();
            *response.body_mut() = ResponseBody::Flight(Box::new(body));
        }
    }
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
