//! What of a stored representation answers a request: its preconditions, then its range, in the
//! order of RFC 9110 §13.2.2. Whether the stored response may be used at all is decided before, by
//! `reuse`.

use http::header::{HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use http::{Method, StatusCode};

use crate::conditional::{if_range_holds, is_not_modified};
use crate::partial::Part;
use crate::range::{self, ByteRange, Requested};
use crate::time::UnixMillis;

/// What of a stored representation is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 304: the client has it already (RFC 9111 §4.3.2).
    NotModified,
    /// The stored status and all bytes of the body.
    Whole,
    /// 206: these ranges (RFC 9110 §15.3.7).
    Ranges(Vec<ByteRange>),
    /// 416: none of the ranges that were asked for lies within it (RFC 9110 §15.5.17).
    Unsatisfiable,
}

/// Selects from a stored response with `status` and the fields `stored`. `length` is the number of
/// bytes of its body where all are there; ranges are cut out of nothing less.
pub fn select(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &HeaderMap,
    length: Option<u64>,
    now: UnixMillis,
) -> Selection {
    if status != StatusCode::OK {
        return Selection::Whole;
    }
    let conditional =
        request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE);
    if conditional && is_not_modified(request, stored, now) {
        return Selection::NotModified;
    }
    let ranged = *method == Method::GET && request.contains_key(RANGE);
    let Some(length) = length.filter(|_| ranged && if_range_holds(request, stored)) else {
        return Selection::Whole;
    };
    match range::resolve(request, length) {
        Requested::Whole => Selection::Whole,
        Requested::Ranges(ranges) => Selection::Ranges(ranges),
        Requested::Unsatisfiable => Selection::Unsatisfiable,
    }
}

/// The one range that a GET asks for, where a stored part covers it (RFC 9111 §3.3).
pub fn select_from_part(
    method: &Method,
    request: &HeaderMap,
    stored: &HeaderMap,
    part: Part,
) -> Option<ByteRange> {
    let ranged = *method == Method::GET && request.contains_key(RANGE);
    if !ranged || !if_range_holds(request, stored) {
        return None;
    }
    let Requested::Ranges(ranges) = range::resolve(request, part.complete_length) else {
        return None;
    };
    let [wanted] = ranges[..] else { return None };
    part.covers(wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    fn selected(method: &Method, request: &[(&'static str, &'static str)]) -> Selection {
        let stored = map(&[("etag", "\"a\"")]);
        select(method, &map(request), StatusCode::OK, &stored, Some(6), NOW)
    }

    #[test]
    fn preconditions_come_before_ranges() {
        let (validator, range) = (("if-none-match", "\"a\""), ("range", "bytes=0-1"));
        let first = Selection::Ranges(vec![ByteRange { first: 0, last: 1 }]);
        assert_eq!(selected(&Method::GET, &[validator, range]), Selection::NotModified);
        assert_eq!(selected(&Method::GET, &[("if-none-match", "\"b\""), range]), first);
        assert_eq!(selected(&Method::GET, &[("if-range", "\"b\""), range]), Selection::Whole);
        assert_eq!(selected(&Method::GET, &[("range", "bytes=9-")]), Selection::Unsatisfiable);
        assert_eq!(selected(&Method::HEAD, &[range]), Selection::Whole);
        let stored = map(&[("etag", "\"a\"")]);
        let status = StatusCode::NOT_FOUND;
        let other = select(&Method::GET, &map(&[validator]), status, &stored, Some(6), NOW);
        assert_eq!(other, Selection::Whole);
    }

    #[test]
    fn a_part_answers_one_range_that_it_covers() {
        let stored = map(&[("etag", "\"a\"")]);
        let part = Part { range: ByteRange { first: 2, last: 5 }, complete_length: 10 };
        for (range, answered) in
            [("bytes=2-3", true), ("bytes=0-3", false), ("bytes=2-2,4-4", false), ("x", false)]
        {
            let request = map(&[("range", range)]);
            let selected = select_from_part(&Method::GET, &request, &stored, part);
            assert_eq!(selected.is_some(), answered, "{range}");
        }
    }
}
