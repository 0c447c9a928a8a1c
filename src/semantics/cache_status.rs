//! The `Cache-Status` field (RFC 9211): what this cache did with a request.
//!
//! One member is appended per cache; ours is named `Outrigger`. Values are built without the
//! formatting machinery, because every response carries one.

use http::HeaderValue;

/// The name under which this cache speaks in `Cache-Status`.
pub const CACHE_NAME: &str = "Outrigger";

/// Why a request went to the upstream (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Forwarded {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// Stored responses exist, but none for these selecting fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored is only a part.
    Partial,
    /// The request asked for it.
    Request,
}

impl Forwarded {
    /// The token of RFC 9211.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The parameters of our member. Empty means "not said".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The request was answered without the upstream.
    pub hit: bool,
    /// It was forwarded, and why.
    pub fwd: Option<Forwarded>,
    /// The status that the upstream answered, where it differs from what the client gets.
    pub fwd_status: Option<u16>,
    /// Seconds of freshness left; negative when stale.
    pub ttl: Option<i64>,
    /// The response was stored.
    pub stored: bool,
    /// The request was collapsed with others into one.
    pub collapsed: bool,
    /// The key of the stored response (RFC 9211 §2.7), left out unless settings show it.
    pub key: Option<&'a str>,
    /// More about the decision: an outcome's stable string.
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// The value of the field, with our member alone.
    pub fn to_value(&self) -> HeaderValue {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(CACHE_NAME.as_bytes());
        let mut digits = itoa::Buffer::new();
        if self.hit {
            out.extend_from_slice(b"; hit");
        }
        if let Some(fwd) = self.fwd {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(fwd.as_str().as_bytes());
        }
        if let Some(status) = self.fwd_status {
            out.extend_from_slice(b"; fwd-status=");
            out.extend_from_slice(digits.format(status).as_bytes());
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(digits.format(ttl).as_bytes());
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(key) = self.key {
            out.extend_from_slice(b"; key=\"");
            // A structured string holds printable ASCII only (RFC 9651 §3.3.3).
            for byte in key.bytes() {
                match byte {
                    b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                    0x20..=0x7e => out.push(byte),
                    _ => out.push(b'?'),
                }
            }
            out.push(b'"');
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(detail.as_bytes());
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(out))
            .unwrap_or_else(|_| HeaderValue::from_static(CACHE_NAME))
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn reasons_are_the_tokens_of_rfc_9211() {
        let tokens: Vec<_> = Forwarded::VARIANTS.iter().map(|why| why.as_str()).collect();
        assert_eq!(
            tokens,
            ["bypass", "method", "uri-miss", "vary-miss", "stale", "partial", "request"]
        );
    }

    #[test]
    fn members_read_as_rfc_9211_shows_them() {
        let hit =
            CacheStatus { hit: true, ttl: Some(-3), detail: Some("memory"), ..Default::default() };
        assert_eq!(hit.to_value(), "Outrigger; hit; ttl=-3; detail=memory");
        let miss = CacheStatus {
            fwd: Some(Forwarded::UriMiss),
            fwd_status: Some(200),
            stored: true,
            collapsed: true,
            key: Some("a\"b"),
            ..Default::default()
        };
        assert_eq!(
            miss.to_value(),
            "Outrigger; fwd=uri-miss; fwd-status=200; stored; collapsed; key=\"a\\\"b\""
        );
    }
}
