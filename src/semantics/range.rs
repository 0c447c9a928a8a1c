//! Byte ranges over a stored representation (RFC 9110 §14).
//!
//! Bounded against amplification: a request with many or overlapping ranges gets the whole
//! representation instead (§14.2 permits ignoring `Range`).

use http::header::{CONTENT_RANGE, HeaderMap, RANGE};

use crate::fields::{members, single};

/// More ranges than this in one request are ignored.
pub const RANGES_MAX: usize = 16;

/// A range of bytes, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Position of the first byte, from 0.
    pub first: u64,
    /// Position of the last byte, itself included.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes the range has.
    pub fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// One member of a `Range` field before the length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// From a position to another one or to the end: `first-last`, `first-`.
    From(u64, Option<u64>),
    /// So many bytes at the end: `-count`.
    Suffix(u64),
}

/// What a `Range` field asks of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// No usable `Range`: serve everything.
    Whole,
    /// Serve these ranges with 206, in this order.
    Ranges(Vec<ByteRange>),
    /// 416: none of the ranges lies within the representation.
    Unsatisfiable,
}

/// Reads a `Range` field. `None` when absent, repeated, in another unit or malformed, all of
/// which mean that the field is ignored (RFC 9110 §14.2).
pub fn parse(headers: &HeaderMap) -> Option<Vec<RangeSpec>> {
    let text = single(headers, &RANGE)?.as_bytes();
    let equals = text.iter().position(|b| *b == b'=')?;
    if !text[..equals].trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let specs: Option<Vec<RangeSpec>> = members(&text[equals + 1..]).map(spec).collect();
    specs.filter(|found| !found.is_empty())
}

fn spec(text: &[u8]) -> Option<RangeSpec> {
    let dash = text.iter().position(|b| *b == b'-')?;
    let (first, last) = (text[..dash].trim_ascii(), text[dash + 1..].trim_ascii());
    match (first.is_empty(), last.is_empty()) {
        (true, false) => Some(RangeSpec::Suffix(number(last)?)),
        (false, true) => Some(RangeSpec::From(number(first)?, None)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::From(first, Some(last)))
        }
        (true, true) => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Applies a `Range` field to a representation of `length` bytes.
pub fn resolve(headers: &HeaderMap, length: u64) -> Requested {
    let Some(specs) = parse(headers) else { return Requested::Whole };
    if specs.len() > RANGES_MAX {
        return Requested::Whole;
    }
    let found: Vec<ByteRange> = specs.iter().filter_map(|spec| within(*spec, length)).collect();
    if found.is_empty() {
        return Requested::Unsatisfiable;
    }
    let total = found.iter().fold(0u64, |sum, range| sum.saturating_add(range.count()));
    if found.len() > 1 && total >= length {
        return Requested::Whole;
    }
    Requested::Ranges(found)
}

/// The part of a representation that one range selects; `None` if it lies outside.
pub fn within(spec: RangeSpec, length: u64) -> Option<ByteRange> {
    match spec {
        RangeSpec::From(first, last) if first < length => {
            Some(ByteRange { first, last: last.unwrap_or(u64::MAX).min(length - 1) })
        }
        RangeSpec::Suffix(count) if count > 0 && length > 0 => {
            Some(ByteRange { first: length.saturating_sub(count), last: length - 1 })
        }
        _ => None,
    }
}

/// `Content-Range` of a 206: the range and the complete length (RFC 9110 §14.4). A length that is
/// not known (`*`) makes the part useless for a cache, so it is `None`.
pub fn content_range(headers: &HeaderMap) -> Option<(ByteRange, u64)> {
    let text = single(headers, &CONTENT_RANGE)?.as_bytes().trim_ascii();
    let text = text.strip_prefix(b"bytes ")?;
    let slash = text.iter().position(|b| *b == b'/')?;
    let dash = text[..slash].iter().position(|b| *b == b'-')?;
    let first = number(&text[..dash])?;
    let last = number(&text[dash + 1..slash])?;
    let length = number(&text[slash + 1..])?;
    (first <= last && last < length).then_some((ByteRange { first, last }, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(value: &str, length: u64) -> Requested {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(value).unwrap());
        resolve(&headers, length)
    }

    fn one(first: u64, last: u64) -> Requested {
        Requested::Ranges(vec![ByteRange { first, last }])
    }

    #[test]
    fn the_three_forms() {
        assert_eq!(asked("bytes=0-1", 10), one(0, 1));
        assert_eq!(asked("bytes=4-", 10), one(4, 9));
        assert_eq!(asked("bytes=-3", 10), one(7, 9));
        assert_eq!(asked("bytes=-30", 10), one(0, 9));
        assert_eq!(asked("bytes=4-99", 10), one(4, 9));
    }

    #[test]
    fn outside_is_unsatisfiable_and_nonsense_is_ignored() {
        assert_eq!(asked("bytes=10-", 10), Requested::Unsatisfiable);
        assert_eq!(asked("bytes=-0", 10), Requested::Unsatisfiable);
        for value in ["bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=", "bytes=--1", "bytes"] {
            assert_eq!(asked(value, 10), Requested::Whole, "{value}");
        }
    }

    #[test]
    fn numbers_of_any_size_do_no_harm() {
        assert_eq!(asked("bytes=0-9223372036854775807", 10), one(0, 9));
        assert_eq!(asked("bytes=-9223372036854775807", 10), one(0, 9));
        for value in ["bytes=0-99999999999999999999", "bytes=99999999999999999999-"] {
            assert_eq!(asked(value, 10), Requested::Whole, "{value}");
        }
        for value in ["bytes 0-99999999999999999999/10", "bytes 0-9/99999999999999999999"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(value).unwrap());
            assert_eq!(content_range(&headers), None, "{value}");
        }
    }

    #[test]
    fn many_ranges_do_not_amplify() {
        let many = format!("bytes={}", vec!["0-0"; 17].join(","));
        assert_eq!(asked(&many, 1000), Requested::Whole);
        assert_eq!(asked("bytes=0-,0-,0-", 10), Requested::Whole);
    }

    proptest::proptest! {
        #[test]
        fn ranges_stay_inside(value in "bytes=[0-9,\\- ]{0,30}", length in 0u64..1000) {
            if let Requested::Ranges(found) = asked(&value, length) {
                for range in found {
                    proptest::prop_assert!(range.first <= range.last && range.last < length);
                }
            }
        }
    }
}
