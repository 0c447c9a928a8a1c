//! Conditional requests: answering them from the store (RFC 9110 §13, RFC 9111 §4.3.2), with the
//! range that may depend on a condition, and making them to validate a stored response (§4.3.1).
//! Whether the stored response may be used at all is decided before, by `reuse`.

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderValue, Method, StatusCode};

use crate::fields::single;
use crate::partial::Part;
use crate::range::{self, ByteRange, Requested};
use crate::time::{UnixMillis, parse_http_date};

/// What of a stored representation is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 304: the client has it already (RFC 9111 §4.3.2).
    NotModified,
    /// All of it.
    Whole,
    /// 206: these ranges (RFC 9110 §15.3.7).
    Ranges(Vec<ByteRange>),
    /// 416: none of the ranges that were asked for lies within it (RFC 9110 §15.5.17).
    Unsatisfiable,
}

/// Whether a request may have a condition or ask for a range (RFC 9110 §13.1, §14.2). Most have and do
/// neither; this takes one look at the names of their fields, where the fields would be looked up one
/// by one.
pub fn is_conditional(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str().as_bytes();
        matches!(name, [b'i', b'f', b'-', ..] | b"range")
    })
}

/// Selects what of a stored response answers a request: preconditions come before ranges (RFC 9110
/// §13.2.2). The response has `status` and the fields `stored`. `length` is the number of
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
    let Some(length) = length.filter(|_| ranged && if_range_holds(request, stored, now)) else {
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
    now: UnixMillis,
) -> Option<ByteRange> {
    let ranged = *method == Method::GET && request.contains_key(RANGE);
    if !ranged || !if_range_holds(request, stored, now) {
        return None;
    }
    let Requested::Ranges(ranges) = range::resolve(request, part.complete_length) else {
        return None;
    };
    let [wanted] = ranges[..] else { return None };
    part.covers(wanted).then_some(wanted)
}

/// Whether the stored response answers this request with 304 (RFC 9111 §4.3.2).
///
/// `If-None-Match` decides alone where present. `If-Modified-Since` compares with
/// `Last-Modified`, else with `Date`.
pub fn is_not_modified(request: &HeaderMap, stored: &HeaderMap, now: UnixMillis) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = stored.get(ETAG).map(HeaderValue::as_bytes);
        return entity_tags(request, &IF_NONE_MATCH).any(|candidate| {
            candidate == b"*" || tag.is_some_and(|tag| weak_match(candidate, tag))
        });
    }
    let Some(since) = date_of(request, &IF_MODIFIED_SINCE, now) else { return false };
    date_of(stored, &LAST_MODIFIED, now)
        .or_else(|| date_of(stored, &DATE, now))
        .is_some_and(|modified| modified <= since)
}

/// The members of a list of entity tags (RFC 9110 §8.8.3). Between its quotes a tag has no escapes, and
/// may hold commas.
fn entity_tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|line| {
        let mut rest = line.as_bytes();
        std::iter::from_fn(move || {
            while let [b',' | b' ' | b'\t', after @ ..] = rest {
                rest = after;
            }
            if rest.is_empty() {
                return None;
            }
            let mut quoted = false;
            let end = rest.iter().position(|byte| {
                quoted ^= *byte == b'"';
                *byte == b',' && !quoted
            });
            let (member, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            Some(member.trim_ascii())
        })
    })
}

/// Weak comparison of entity tags (RFC 9110 §8.8.3.2).
pub fn weak_match(a: &[u8], b: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    opaque(a) == opaque(b)
}

/// Strong comparison of entity tags.
pub fn strong_match(a: &[u8], b: &[u8]) -> bool {
    !a.starts_with(b"W/") && a == b
}

fn date_of(headers: &HeaderMap, name: &HeaderName, now: UnixMillis) -> Option<UnixMillis> {
    single(headers, name).and_then(|value| parse_http_date(value.as_bytes(), now))
}

/// The fields of a stored response that belong in a 304 made from it: all but those that describe
/// the representation that the client has already (RFC 9110 §15.4.5).
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let tagged = stored.contains_key(ETAG);
    let mut headers = HeaderMap::with_capacity(stored.keys_len());
    for (name, value) in stored {
        if !(describes_content(name) || (tagged && *name == LAST_MODIFIED)) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Metadata of a representation besides its validators and its freshness (RFC 9110 §8, RFC 9530).
fn describes_content(name: &HeaderName) -> bool {
    [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE].contains(name)
        || matches!(name.as_str(), "content-digest" | "repr-digest" | "digest" | "content-md5")
}

/// Removes the preconditions and the range of a request that is about to fill the cache: what
/// is stored must not depend on what one client already had.
pub fn strip_conditions(headers: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
        headers.remove(name);
    }
}

/// Turns a request into one that validates `stored` (RFC 9111 §4.3.1): both validators where
/// both are there, replacing the client's own conditions.
///
/// Answers `false`, leaving only an unconditional request, when there is no validator.
pub fn make_validation(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    strip_conditions(request);
    let tag = stored.get(ETAG);
    let modified = single(stored, &LAST_MODIFIED);
    if let Some(tag) = tag {
        request.insert(IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = modified {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    tag.is_some() || modified.is_some()
}

/// Whether `If-Range` lets the range apply to the stored response (RFC 9110 §13.1.5): strong tags
/// that agree, or the very same date where that is a strong validator: the response was sent at least
/// a second after the representation had changed (§8.8.2.2).
pub fn if_range_holds(request: &HeaderMap, stored: &HeaderMap, now: UnixMillis) -> bool {
    let Some(condition) = request.get(IF_RANGE) else { return true };
    let condition = condition.as_bytes().trim_ascii();
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return stored.get(ETAG).is_some_and(|tag| strong_match(condition, tag.as_bytes()));
    }
    let same =
        stored.get(LAST_MODIFIED).is_some_and(|date| date.as_bytes().trim_ascii() == condition);
    let (modified, sent) = (date_of(stored, &LAST_MODIFIED, now), date_of(stored, &DATE, now));
    same && modified.zip(sent).is_some_and(|(modified, sent)| sent > modified)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn an_entity_tag_has_no_escapes_and_may_hold_commas() {
        let matches = |condition: &'static str, tag: &'static str| {
            let mut request = HeaderMap::new();
            request.insert(IF_NONE_MATCH, HeaderValue::from_static(condition));
            let mut stored = HeaderMap::new();
            stored.insert(ETAG, HeaderValue::from_static(tag));
            is_not_modified(&request, &stored, UnixMillis(0))
        };
        assert!(matches("\"a\\\", \"b\"", "\"b\""));
        assert!(matches("\"a\\\", \"b\"", "\"a\\\""));
        assert!(matches("\"a,b\",\"c\"", "\"a,b\""));
        assert!(matches(", W/\"x\" ,, \"c\"", "\"x\""));
        assert!(!matches("\"a,b\"", "\"b\""));
        assert!(matches("a, \"b\"", "\"b\""));
    }

    #[test]
    fn a_304_leaves_out_only_what_describes_the_content() {
        let mut stored = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("etag", "\"a\""),
            ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("content-security-policy", "default-src 'self'"),
            ("content-location", "/a"),
            ("via", "1.1 a"),
            ("x-own", "1"),
        ] {
            stored.insert(name, HeaderValue::from_static(value));
        }
        let got = not_modified_headers(&stored);
        let left_out = ["content-type", "content-length", "content-encoding", "last-modified"];
        assert_eq!(got.len(), stored.len() - left_out.len());
        assert!(left_out.iter().all(|name| !got.contains_key(*name)));
        stored.remove("etag");
        assert!(not_modified_headers(&stored).contains_key(LAST_MODIFIED));
    }

    #[test]
    fn none_match_decides_before_modified_since() {
        let stored = map(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let hit = map(&[
            ("if-none-match", "\"x\", W/\"a\""),
            ("if-modified-since", "Sun, 06 Nov 1994 00:00:00 GMT"),
        ]);
        assert!(is_not_modified(&hit, &stored, NOW));
        let miss = map(&[
            ("if-none-match", "\"x\""),
            ("if-modified-since", "Mon, 07 Nov 1994 00:00:00 GMT"),
        ]);
        assert!(!is_not_modified(&miss, &stored, NOW));
    }

    #[test]
    fn modified_since_falls_back_to_date() {
        let stored = map(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let at = |value| map(&[("if-modified-since", value)]);
        assert!(is_not_modified(&at("Sun, 06 Nov 1994 08:49:37 GMT"), &stored, NOW));
        assert!(!is_not_modified(&at("Sun, 06 Nov 1994 08:49:36 GMT"), &stored, NOW));
        assert!(!is_not_modified(&at("yesterday"), &stored, NOW));
    }

    #[test]
    fn a_date_that_is_repeated_or_has_nothing_to_compare_is_ignored() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let stored = map(&[("etag", "\"a\""), ("last-modified", date)]);
        let mut twice = map(&[("if-modified-since", date)]);
        assert!(is_not_modified(&twice, &stored, NOW));
        twice.append(IF_MODIFIED_SINCE, HeaderValue::from_static(date));
        assert!(!is_not_modified(&twice, &stored, NOW));
        let since = map(&[("if-modified-since", date)]);
        assert!(!is_not_modified(&since, &map(&[("etag", "\"a\"")]), NOW));
    }

    #[test]
    fn validation_replaces_the_clients_conditions() {
        let mut request = map(&[("if-none-match", "\"mine\""), ("range", "bytes=0-1")]);
        assert!(make_validation(&mut request, &map(&[("etag", "\"a\"")])));
        assert_eq!(request.get("if-none-match").unwrap(), "\"a\"");
        assert!(!request.contains_key("range"));
        assert!(!make_validation(&mut request, &map(&[])));
    }

    #[test]
    fn if_range_wants_strong_agreement() {
        let stored = map(&[("etag", "W/\"a\"")]);
        assert!(!if_range_holds(&map(&[("if-range", "W/\"a\"")]), &stored, NOW));
        let stored = map(&[("etag", "\"a\"")]);
        assert!(if_range_holds(&map(&[("if-range", "\"a\"")]), &stored, NOW));
        assert!(if_range_holds(&map(&[]), &stored, NOW));
    }

    #[test]
    fn a_date_in_if_range_counts_where_it_is_a_strong_validator() {
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let request = map(&[("if-range", modified.1)]);
        let holds =
            |date: &'static str| if_range_holds(&request, &map(&[modified, ("date", date)]), NOW);
        assert!(holds("Sun, 06 Nov 1994 08:49:38 GMT"));
        assert!(holds("Mon, 07 Nov 1994 08:49:37 GMT"));
        for weak in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT", "soon"] {
            assert!(!holds(weak), "{weak}");
        }
        assert!(!if_range_holds(&request, &map(&[modified]), NOW));
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
        assert_eq!(selected(&Method::GET, &[("if-range", "\"a\"")]), Selection::Whole);
        assert_eq!(selected(&Method::GET, &[("if-range", "\"b\"")]), Selection::Whole);
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
            let selected = select_from_part(&Method::GET, &request, &stored, part, NOW);
            assert_eq!(selected.is_some(), answered, "{range}");
        }
    }
}
