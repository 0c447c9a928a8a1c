//! Time as the engine sees it, and the HTTP date syntax (RFC 9110 §5.6.7).
//!
//! Dates are parsed strictly in structure (a sloppy date must count as "already expired", RFC 9111
//! §5.3) and leniently in letter case; the two obsolete forms are understood as §5.6.7 demands.

use std::ops::{Add, Sub};

use http::HeaderValue;

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The earliest point in time; used for "never".
    pub const MIN: UnixMillis = UnixMillis(i64::MIN / 4);
    /// The latest point in time; used for "for ever".
    pub const MAX: UnixMillis = UnixMillis(i64::MAX / 4);

    /// Builds a point in time from whole seconds since the Unix epoch.
    pub fn from_secs(secs: i64) -> Self {
        UnixMillis(secs.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to `self`; negative if `self` comes first.
    pub fn millis_since(self, earlier: UnixMillis) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The IMF-fixdate form (RFC 9110 §5.6.7), for a `Date` field.
    pub fn to_http_date(self) -> HeaderValue {
        let secs = self.as_secs().clamp(0, 253_402_300_799) as u64;
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        HeaderValue::from_str(&httpdate::fmt_http_date(at))
            .unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
    }
}

impl Add<i64> for UnixMillis {
    type Output = UnixMillis;
    fn add(self, millis: i64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(millis))
    }
}

impl Sub<i64> for UnixMillis {
    type Output = UnixMillis;
    fn sub(self, millis: i64) -> UnixMillis {
        UnixMillis(self.0.saturating_sub(millis))
    }
}

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];
const DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// Parses an HTTP date: IMF-fixdate, or the obsolete RFC 850 and asctime forms.
///
/// `now` resolves the two-digit year of RFC 850, which names the past if it would otherwise lie
/// more than 50 years ahead (RFC 9110 §5.6.7). Answers `None` for anything else.
pub fn parse_http_date(text: &[u8], now: UnixMillis) -> Option<UnixMillis> {
    let text = text.trim_ascii();
    imf_fixdate(text).or_else(|| rfc850_date(text, now)).or_else(|| asctime_date(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<UnixMillis> {
    if text.len() != 29 || &text[3..5] != b", " || !is_short_day(&text[..3]) {
        return None;
    }
    if text[7] != b' ' || text[11] != b' ' || text[16] != b' ' || text[25] != b' ' {
        return None;
    }
    if !text[26..].eq_ignore_ascii_case(b"GMT") {
        return None;
    }
    let (hour, minute, second) = clock(&text[17..25])?;
    civil(digits(&text[12..16])?, month(&text[8..11])?, digits(&text[5..7])?, hour, minute, second)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_date(text: &[u8], now: UnixMillis) -> Option<UnixMillis> {
    let comma = text.iter().position(|b| *b == b',')?;
    if !DAYS.iter().any(|day| day.eq_ignore_ascii_case(&text[..comma])) {
        return None;
    }
    let rest = text.get(comma + 1..)?;
    if rest.len() != 23 || rest[0] != b' ' || rest[3] != b'-' || rest[7] != b'-' || rest[10] != b' '
    {
        return None;
    }
    if rest[19] != b' ' || !rest[20..].eq_ignore_ascii_case(b"GMT") {
        return None;
    }
    let (hour, minute, second) = clock(&rest[11..19])?;
    let short_year = digits(&rest[8..10])?;
    let (month, day) = (month(&rest[4..7])?, digits(&rest[1..3])?);
    let this_year = 1970 + now.as_secs() / 31_556_952;
    let mut year = this_year - this_year.rem_euclid(100) + short_year;
    if year > this_year + 50 {
        year -= 100;
    }
    civil(year, month, day, hour, minute, second)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(text: &[u8]) -> Option<UnixMillis> {
    if text.len() != 24 || !is_short_day(&text[..3]) {
        return None;
    }
    if text[3] != b' ' || text[7] != b' ' || text[10] != b' ' || text[19] != b' ' {
        return None;
    }
    let day = match (text[8], text[9]) {
        (b' ', ones @ b'0'..=b'9') => i64::from(ones - b'0'),
        _ => digits(&text[8..10])?,
    };
    let (hour, minute, second) = clock(&text[11..19])?;
    civil(digits(&text[20..24])?, month(&text[4..7])?, day, hour, minute, second)
}

fn is_short_day(text: &[u8]) -> bool {
    DAYS.iter().any(|day| day[..3].eq_ignore_ascii_case(text))
}

fn month(text: &[u8]) -> Option<i64> {
    MONTHS.iter().position(|m| m.eq_ignore_ascii_case(text)).map(|i| i as i64 + 1)
}

fn clock(text: &[u8]) -> Option<(i64, i64, i64)> {
    if text[2] != b':' || text[5] != b':' {
        return None;
    }
    Some((digits(&text[..2])?, digits(&text[3..5])?, digits(&text[6..8])?))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// Days-from-civil for the proleptic Gregorian calendar; refuses days that do not exist.
fn civil(y: i64, m: i64, d: i64, hour: i64, minute: i64, second: i64) -> Option<UnixMillis> {
    let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let month_days = match m {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if d < 1 || d > month_days || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(UnixMillis::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn secs(text: &str) -> Option<i64> {
        parse_http_date(text.as_bytes(), NOW).map(UnixMillis::as_secs)
    }

    #[test]
    fn the_three_forms_name_the_same_second() {
        assert_eq!(secs("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(secs("Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(secs("Sun Nov  6 08:49:37 1994"), Some(784_111_777));
    }

    #[test]
    fn letter_case_does_not_matter() {
        assert_eq!(secs("sUN, 06 nOV 1994 08:49:37 gmt"), Some(784_111_777));
    }

    #[test]
    fn sloppy_dates_are_refused() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "0",
            "",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_we_print_we_read_back(secs in 0i64..253_402_300_799) {
            let at = UnixMillis::from_secs(secs);
            proptest::prop_assert_eq!(parse_http_date(at.to_http_date().as_bytes(), NOW), Some(at));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = parse_http_date(&text, NOW);
        }
    }
}
