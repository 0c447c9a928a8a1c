//! The values that appear in policy and bootstrap files. Each type parses itself and refuses what
//! it cannot mean, so that an error carries the line of the value and says how to mend it.

use std::fmt;

use crate::error::ValueError;
use crate::text::text_value;
use crate::uri::canonical_host;

pub use crate::sharing::{Consistency, PartitionBy};

/// A span of time, milliseconds. Written with a unit: `250ms`, `30s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl Span {
    /// Longest span: ten years.
    const MILLIS_MAX: u64 = 315_360_000_000;

    /// Reads a span as it is written in a document.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let wrong = |fix: String| Err(ValueError::form("duration", text, fix));
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => {
                let shown = if text.is_empty() { "30" } else { text };
                return wrong(format!("add a unit, for example {shown}s (units: ms, s, m, h, d)"));
            }
            _ => {
                let fix =
                    "write a whole number and a unit, for example 30s (units: ms, s, m, h, d)";
                return wrong(fix.to_owned());
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .filter(|ms| *ms <= Self::MILLIS_MAX)
            .map(Span)
            .ok_or_else(|| ValueError::form("duration", text, "at most 3650d"))
    }

    /// Milliseconds, signed, for arithmetic with points in time.
    pub fn millis(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

text_value!(
    Span,
    "Duration",
    "a duration with a unit: 250ms, 30s, 5m, 2h, 1d",
    "^[0-9]+(ms|s|m|h|d)$"
);

/// A size in bytes. Written with a unit: `512B`, `64KiB`, `8MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Reads a size as it is written in a document.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => {
                let fix =
                    "write a whole number and a unit, for example 8MiB (units: B, KiB, MiB, GiB)";
                return Err(ValueError::form("size", text, fix));
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .map(ByteSize)
            .ok_or_else(|| ValueError::form("size", text, "the number is missing or too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

text_value!(
    ByteSize,
    "ByteSize",
    "a size with a unit: 512B, 64KiB, 8MiB, 1GiB",
    "^[0-9]+(B|KiB|MiB|GiB)$"
);

/// A share, whole percent: `10%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Percent {
    /// Reads a share as it is written in a document.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        text.strip_suffix('%')
            .and_then(|number| number.parse::<u8>().ok())
            .filter(|number| *number <= 100)
            .map(Percent)
            .ok_or_else(|| ValueError::form("share", text, "write 0% to 100%, for example 10%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

text_value!(Percent, "Percent", "a share in whole percent: 10%", "^[0-9]{1,3}%$");

/// A host: exact (`shop.svc`), a wildcard for everything below a domain (`*.shop.svc`), or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host, in lower case, and no other.
    Exact(String),
    /// Every host below this domain; the text starts behind the `*.`.
    Below(String),
    /// Every host, also an unknown one.
    Any,
}

impl HostPattern {
    /// Reads a host pattern, in canonical form: neither letter case, nor a dot at the end, nor the
    /// spelling of an IPv6 address matters.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Any);
        }
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let good = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if name.is_empty() || !name.chars().all(good) {
            let fix = "write shop.svc, *.shop.svc or * (no scheme, no path)";
            return Err(ValueError::form("host", text, fix));
        }
        if has_port(name) {
            let fix = "leave the port out, hosts match on every port";
            return Err(ValueError::form("host", text, fix));
        }
        Ok(if lower.starts_with("*.") {
            Self::Below(canonical_host(name).into_owned())
        } else {
            Self::Exact(canonical_host(name).into_owned())
        })
    }
}

fn has_port(name: &str) -> bool {
    match name.rsplit_once(':') {
        Some((_, port)) => !name.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()),
        None => false,
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

text_value!(
    HostPattern,
    "Host",
    "a host without a port: shop.svc, *.shop.svc or *",
    "^(\\*|(\\*\\.)?[A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])$"
);

/// The name of a header field, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(String);

impl FieldName {
    /// Reads a field name.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        http::HeaderName::from_bytes(text.as_bytes())
            .map(|name| FieldName(name.as_str().to_owned()))
            .map_err(|_| {
                let fix = "write a field name such as accept-language";
                ValueError::form("header name", text, fix)
            })
    }

    /// The name as the HTTP types use it.
    pub fn header_name(&self) -> http::HeaderName {
        // Parsed before, so the fallback is never reached.
        http::HeaderName::from_bytes(self.0.as_bytes()).unwrap_or(http::header::HOST)
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(FieldName, "HeaderName", "the name of a header field", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");

/// An HTTP method as a policy names it (RFC 9110 §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub http::Method);

impl MethodName {
    /// Reads a method; methods are case-sensitive (RFC 9110 §9.1).
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let good = !text.is_empty() && !text.bytes().any(|b| b.is_ascii_lowercase());
        good.then(|| http::Method::from_bytes(text.as_bytes()).ok())
            .flatten()
            .map(MethodName)
            .ok_or_else(|| {
                ValueError::form("method", text, "write it in capitals, for example GET")
            })
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_value!(MethodName, "Method", "an HTTP method in capitals", "^[!#$%&'*+.^_`|~0-9A-Z-]+$");

/// A name, or the beginning of one followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    prefix: bool,
}

impl NamePattern {
    /// Reads a pattern as it is written in a document.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || stem.contains(['*', '&', '=']) {
            let fix = "write a name such as page, or a beginning such as utm_*";
            return Err(ValueError::form("pattern", text, fix));
        }
        Ok(NamePattern { text: stem.to_owned(), prefix: stem.len() != text.len() })
    }

    /// Whether a name fits the pattern.
    pub fn matches(&self, name: &[u8]) -> bool {
        if self.prefix {
            name.starts_with(self.text.as_bytes())
        } else {
            name == self.text.as_bytes()
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

text_value!(NamePattern, "NamePattern", "a name, or its beginning followed by *", "^[^*&=]*\\*?$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print() {
        for text in ["250ms", "30s", "5m", "2h", "1d", "0ms"] {
            assert_eq!(Span::parse(text).map(|span| span.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Span::parse("90s").unwrap().0, 90_000);
        assert!(Span::parse("30").unwrap_err().to_string().contains("30s"));
        for bad in ["", "s", "-1s", "1.5s", "1 s", "9999999999d", "1w"] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(ByteSize::parse("64MiB").unwrap().0, 64 << 20);
        assert!(ByteSize::parse("64MB").is_err());
        assert!(ByteSize::parse("99999999999999999999GiB").is_err());
    }

    #[test]
    fn hosts_are_names_and_not_addresses_with_ports() {
        assert_eq!(HostPattern::parse("Shop.SVC"), Ok(HostPattern::Exact("shop.svc".into())));
        assert_eq!(HostPattern::parse("*.svc"), Ok(HostPattern::Below("svc".into())));
        assert_eq!(HostPattern::parse("Shop.svc."), Ok(HostPattern::Exact("shop.svc".into())));
        assert_eq!(HostPattern::parse("*.svc."), Ok(HostPattern::Below("svc".into())));
        assert_eq!(HostPattern::parse("[0::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert!(HostPattern::parse("shop.svc:80").is_err());
        assert!(HostPattern::parse("http://shop").is_err());
        assert!(HostPattern::parse("[::1]").is_ok());
    }
}
