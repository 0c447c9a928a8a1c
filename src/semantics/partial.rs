//! Storing and combining partial responses (RFC 9111 §3.3, §3.4).
//!
//! Only what is provably one representation is combined: both parts carry the same strong
//! validator and the same complete length. Everything else is passed through and forgotten.

use http::header::{CONTENT_ENCODING, ETAG, HeaderMap, IF_RANGE, RANGE};
use http::{HeaderValue, StatusCode};

use crate::fields::single;
use crate::range::{ByteRange, content_range};

/// A stored part of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which bytes it holds.
    pub range: ByteRange,
    /// How many bytes the whole representation has.
    pub complete_length: u64,
}

/// The part that a 206 holds, if it can be kept: a single range with a known complete length, a
/// strong validator, and a body of exactly the announced size.
pub fn storable_part(headers: &HeaderMap, body_length: u64) -> Option<Part> {
    let (range, complete_length) = content_range(headers)?;
    let strong = headers.get(ETAG).is_some_and(|tag| !tag.as_bytes().starts_with(b"W/"));
    (strong && range.count() == body_length).then_some(Part { range, complete_length })
}

/// Asks in these request fields for what comes after `had` bytes of a response with the fields
/// `response`, if it is still of the same representation (RFC 9110 §13.1.5, §14.2). `false` where the
/// response has no strong entity tag to tell that by.
pub fn ask_for_rest(request: &mut HeaderMap, response: &HeaderMap, had: u64) -> bool {
    let Some(tag) = single(response, &ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else {
        return false;
    };
    let Ok(range) = HeaderValue::from_str(&format!("bytes={had}-")) else { return false };
    request.insert(IF_RANGE, tag.clone());
    request.insert(RANGE, range);
    true
}

/// Whether a response is all that lacks of another one, of which `had` bytes of `length` have come: it
/// has the same strong entity tag, in the same coding, and begins and ends where it must.
pub fn is_the_rest(
    (status, rest): (StatusCode, &HeaderMap),
    response: &HeaderMap,
    had: u64,
    length: u64,
) -> bool {
    let strong = |headers| single(headers, &ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    let same = strong(rest).is_some() && strong(rest) == strong(response);
    let coding = |headers: &HeaderMap| headers.get(CONTENT_ENCODING).cloned();
    let wanted = (ByteRange { first: had, last: length.saturating_sub(1) }, length);
    status == StatusCode::PARTIAL_CONTENT
        && same
        && coding(rest) == coding(response)
        && content_range(rest) == Some(wanted)
}

/// How two parts of one representation join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The part that results.
    pub part: Part,
    /// Whether the older part comes first.
    pub old_first: bool,
    /// How many leading bytes of the later part are already in the earlier one.
    pub overlap: u64,
}

/// Joins two parts that touch or overlap (RFC 9110 §15.3.7.3). `None` when there is a gap, when
/// one contains the other, or when they are not of the same representation.
pub fn join(old: (&HeaderMap, Part), new: (&HeaderMap, Part)) -> Option<Joined> {
    let same = old.0.get(ETAG)? == new.0.get(ETAG)?;
    let length = new.1.complete_length;
    if !same || old.1.complete_length != length {
        return None;
    }
    let old_first = old.1.range.first < new.1.range.first;
    let (left, right) = if old_first { (old.1, new.1) } else { (new.1, old.1) };
    let touches = right.range.first <= left.range.last + 1;
    if !touches || right.range.last <= left.range.last {
        return None;
    }
    let range = ByteRange { first: left.range.first, last: right.range.last };
    let overlap = left.range.last + 1 - right.range.first;
    Some(Joined { part: Part { range, complete_length: length }, old_first, overlap })
}

impl Part {
    /// Whether the part is in truth the whole representation.
    pub fn is_complete(&self) -> bool {
        self.range.count() == self.complete_length
    }

    /// The `Content-Range` that says which part it is (RFC 9110 §14.4).
    pub fn content_range(&self) -> Option<HeaderValue> {
        let Part { range: ByteRange { first, last }, complete_length } = self;
        HeaderValue::from_str(&format!("bytes {first}-{last}/{complete_length}")).ok()
    }

    /// Whether the part holds all of `wanted`.
    pub fn covers(&self, wanted: ByteRange) -> bool {
        self.range.first <= wanted.first && wanted.last <= self.range.last
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rest_is_of_the_same_representation_and_whole() {
        let of = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let field = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(field).collect()
        };
        let response = of(&[("etag", "\"1\"")]);
        let mut request = HeaderMap::new();
        assert!(ask_for_rest(&mut request, &response, 4));
        assert_eq!(
            (&request[RANGE], &request[IF_RANGE]),
            (&"bytes=4-".parse().unwrap(), &response[ETAG])
        );
        assert!(!ask_for_rest(&mut request, &of(&[("etag", "W/\"1\"")]), 4));
        assert!(!ask_for_rest(&mut request, &of(&[]), 4));
        let fits = |status: u16, rest: &[(&'static str, &'static str)]| {
            is_the_rest((StatusCode::from_u16(status).unwrap(), &of(rest)), &response, 4, 10)
        };
        let range = ("content-range", "bytes 4-9/10");
        assert!(fits(206, &[("etag", "\"1\""), range]));
        for (status, rest) in [
            (200, &[("etag", "\"1\""), range][..]),
            (206, &[("etag", "\"2\""), range]),
            (206, &[("etag", "W/\"1\""), range]),
            (206, &[range]),
            (206, &[("etag", "\"1\"")]),
            (206, &[("etag", "\"1\""), ("content-range", "bytes 3-9/10")]),
            (206, &[("etag", "\"1\""), ("content-range", "bytes 4-8/10")]),
            (206, &[("etag", "\"1\""), ("content-range", "bytes 4-9/*")]),
            (206, &[("etag", "\"1\""), ("content-range", "bytes 4-9/11")]),
            (206, &[("etag", "\"1\""), range, ("content-encoding", "gzip")]),
        ] {
            assert!(!fits(status, rest), "{status} {rest:?}");
        }
    }

    use super::*;
    use http::HeaderValue;
    use http::header::CONTENT_RANGE;

    fn headers(range: &str, tag: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_RANGE, HeaderValue::from_str(range).unwrap());
        map.insert(ETAG, HeaderValue::from_static(tag));
        map
    }

    #[test]
    fn a_part_must_be_what_it_says() {
        assert!(storable_part(&headers("bytes 4-9/10", "\"a\""), 6).is_some());
        assert!(storable_part(&headers("bytes 4-9/10", "\"a\""), 5).is_none());
        assert!(storable_part(&headers("bytes 4-9/10", "W/\"a\""), 6).is_none());
        assert!(storable_part(&headers("bytes 4-9/*", "\"a\""), 6).is_none());
        assert!(storable_part(&headers("bytes 4-10/10", "\"a\""), 7).is_none());
    }

    #[test]
    fn parts_join_when_they_touch() {
        let (a, b) = (headers("bytes 0-4/10", "\"a\""), headers("bytes 3-9/10", "\"a\""));
        let (pa, pb) = (storable_part(&a, 5).unwrap(), storable_part(&b, 7).unwrap());
        let joined = join((&a, pa), (&b, pb)).unwrap();
        assert!(joined.part.is_complete() && joined.old_first);
        assert_eq!(joined.overlap, 2);
        assert_eq!(pa.content_range(), a.get("content-range").cloned());
        let c = headers("bytes 6-9/10", "\"a\"");
        assert!(join((&a, pa), (&c, storable_part(&c, 4).unwrap())).is_none());
        let d = headers("bytes 5-9/10", "\"z\"");
        assert!(join((&a, pa), (&d, storable_part(&d, 5).unwrap())).is_none());
    }
}
