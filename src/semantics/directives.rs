//! `Cache-Control` of requests and responses (RFC 9111 §5.2), with the extensions of RFC 5861
//! (stale windows) and RFC 8246 (immutable).
//!
//! Unknown directives are ignored. A directive with a value that cannot be read is taken in its
//! cautious sense: `max-age=soon` is a lifetime of zero (RFC 9111 §4.2.1). Where a directive
//! repeats, the first one counts, except that the smaller of two lifetimes wins.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};

use crate::fields::{is_token, list, split_unquoted, unquote};

/// Seconds, saturated at 2^31 as RFC 9111 §1.2.2 asks.
pub const DELTA_SECONDS_MAX: u32 = 1 << 31;

/// Reads delta-seconds: digits only; overflow saturates (RFC 9111 §1.2.2).
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |sum, byte| {
        byte.is_ascii_digit().then(|| {
            sum.saturating_mul(10).saturating_add(u32::from(byte - b'0')).min(DELTA_SECONDS_MAX)
        })
    })
}

/// How far `no-cache` or `private` reaches (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DirectiveScope {
    /// The directive is absent.
    #[default]
    Absent,
    /// It concerns these fields only (the qualified form).
    Fields(Vec<HeaderName>),
    /// It concerns the whole response.
    Whole,
}

impl DirectiveScope {
    /// Whether the whole response is concerned.
    pub fn is_whole(&self) -> bool {
        *self == DirectiveScope::Whole
    }

    fn widen(&mut self, value: Option<&[u8]>) {
        let named = value.and_then(unquote).map(|text| {
            text.split(|b| *b == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|name| !name.is_empty())
                .map(HeaderName::from_bytes)
                .collect::<Result<Vec<_>, _>>()
        });
        let next = match named {
            // A qualified form that names nothing readable is taken as the whole response.
            Some(Ok(names)) if !names.is_empty() => DirectiveScope::Fields(names),
            _ => DirectiveScope::Whole,
        };
        match (&mut *self, next) {
            (DirectiveScope::Fields(have), DirectiveScope::Fields(more)) => have.extend(more),
            (DirectiveScope::Whole, _) => {}
            (_, next) => *self = next,
        }
    }
}

/// The directives of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `max-age`: freshness lifetime in seconds (RFC 9111 §5.2.2.1).
    pub max_age: Option<u32>,
    /// `s-maxage`: freshness lifetime for shared caches in seconds (RFC 9111 §5.2.2.10).
    pub s_maxage: Option<u32>,
    /// `no-store`: must not be stored (RFC 9111 §5.2.2.5).
    pub no_store: bool,
    /// `no-cache`, whole or for some fields.
    pub no_cache: DirectiveScope,
    /// `private`, whole or for some fields.
    pub private: DirectiveScope,
    /// `public`: may be stored although the request was authenticated (RFC 9111 §5.2.2.9).
    pub public: bool,
    /// `must-revalidate`: never served stale (RFC 9111 §5.2.2.2).
    pub must_revalidate: bool,
    /// `proxy-revalidate`: never served stale by a shared cache (RFC 9111 §5.2.2.8).
    pub proxy_revalidate: bool,
    /// `must-understand`: stored only if the status is known (RFC 9111 §5.2.2.3).
    pub must_understand: bool,
    /// `immutable`: a reload needs no validation while fresh (RFC 8246).
    pub immutable: bool,
    /// `stale-while-revalidate`, seconds (RFC 5861 §3).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error`, seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
}

impl ResponseDirectives {
    /// Reads the `Cache-Control` lines of a response.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for member in list(headers, &CACHE_CONTROL) {
            found.take(member);
        }
        found
    }

    fn take(&mut self, member: &[u8]) {
        let parsed = name_and_value(member);
        if !is_well_formed(parsed.as_ref()) {
            self.restrict(member);
        }
        let Some((name, value)) = parsed else { return };
        match name.as_slice() {
            b"max-age" => smaller(&mut self.max_age, seconds(value)),
            b"s-maxage" => smaller(&mut self.s_maxage, seconds(value)),
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.widen(value),
            b"private" => self.private.widen(value),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"immutable" => self.immutable = true,
            b"stale-while-revalidate" => smaller(&mut self.stale_while_revalidate, seconds(value)),
            b"stale-if-error" => smaller(&mut self.stale_if_error, seconds(value)),
            _ => {}
        }
    }

    /// Takes the words that restrict reuse out of text that is no directive. Whoever wrote it meant
    /// them; what permits reuse does not count there.
    pub(crate) fn restrict(&mut self, text: &[u8]) {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        for word in text.split(|byte| !is_word(byte)) {
            match word.to_ascii_lowercase().as_slice() {
                b"no-store" => self.no_store = true,
                b"no-cache" => self.no_cache = DirectiveScope::Whole,
                b"private" => self.private = DirectiveScope::Whole,
                b"must-revalidate" => self.must_revalidate = true,
                b"proxy-revalidate" => self.proxy_revalidate = true,
                _ => {}
            }
        }
    }

    /// These directives, if one of `self` forbids storing then that too.
    pub(crate) fn and_restrict(&self, mut directives: Self) -> Self {
        directives.no_store |= self.no_store;
        if self.private.is_whole() {
            directives.private = DirectiveScope::Whole;
        }
        directives
    }

    /// Whether a stale response may never be served without validation (RFC 9111 §4.2.4):
    /// `s-maxage` carries the meaning of `proxy-revalidate` (§5.2.2.10).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache.is_whole()
    }
}

/// The directives of a request (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `max-age`: greatest age in seconds that the client accepts (RFC 9111 §5.2.1.1).
    pub max_age: Option<u32>,
    /// `min-fresh`: how many seconds the response must still be fresh (RFC 9111 §5.2.1.3).
    pub min_fresh: Option<u32>,
    /// `max-stale`, seconds; [`DELTA_SECONDS_MAX`] when no limit is named.
    pub max_stale: Option<u32>,
    /// `no-cache`: validate before use (RFC 9111 §5.2.1.4).
    pub no_cache: bool,
    /// `no-store`: the response is not stored (RFC 9111 §5.2.1.5).
    pub no_store: bool,
    /// `only-if-cached`: answer from the store or with 504 (RFC 9111 §5.2.1.7).
    pub only_if_cached: bool,
    /// `stale-if-error`, seconds (RFC 5861 §4.1).
    pub stale_if_error: Option<u32>,
}

impl RequestDirectives {
    /// Reads the `Cache-Control` lines of a request.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            return found;
        }
        for member in list(headers, &CACHE_CONTROL) {
            let Some((name, value)) = name_and_value(member) else { continue };
            match name.as_slice() {
                b"max-age" => smaller(&mut found.max_age, seconds(value)),
                b"min-fresh" => {
                    let asked = value.and_then(number).unwrap_or(DELTA_SECONDS_MAX);
                    found.min_fresh = Some(found.min_fresh.unwrap_or(0).max(asked));
                }
                b"max-stale" => {
                    let allowed = value.map_or(DELTA_SECONDS_MAX, |v| number(v).unwrap_or(0));
                    smaller(&mut found.max_stale, allowed);
                }
                b"no-cache" => found.no_cache = true,
                b"no-store" => found.no_store = true,
                b"only-if-cached" => found.only_if_cached = true,
                b"stale-if-error" => smaller(&mut found.stale_if_error, seconds(value)),
                _ => {}
            }
        }
        found
    }
}

type ShortName = smallvec::SmallVec<[u8; 24]>;

/// Splits `name=value`; the name in lower case. White space around `=` is not allowed
/// (RFC 9111 §5.2), so that `max-age =1` is an unknown directive and not a lifetime.
fn name_and_value(member: &[u8]) -> Option<(ShortName, Option<&[u8]>)> {
    let mut parts = split_unquoted(member, b'=');
    let name = parts.next()?;
    if !is_token(name) {
        return None;
    }
    let value = (name.len() < member.len()).then(|| &member[name.len() + 1..]);
    Some((name.iter().map(u8::to_ascii_lowercase).collect(), value))
}

/// Whether this is a directive by the grammar (RFC 9111 §5.2): a token, and a token or a quoted string
/// as its value.
fn is_well_formed(parsed: Option<&(ShortName, Option<&[u8]>)>) -> bool {
    let Some((_, value)) = parsed else { return false };
    value.is_none_or(|value| value.is_empty() || is_token(value) || unquote(value).is_some())
}

fn number(value: &[u8]) -> Option<u32> {
    match value.first() {
        Some(b'"') => delta_seconds(&unquote(value)?),
        _ => delta_seconds(value),
    }
}

/// A lifetime; what cannot be read is zero.
fn seconds(value: Option<&[u8]>) -> u32 {
    value.and_then(number).unwrap_or(0)
}

fn smaller(slot: &mut Option<u32>, value: u32) {
    *slot = Some(slot.map_or(value, |have| have.min(value)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn response(lines: &[&'static str]) -> ResponseDirectives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        ResponseDirectives::parse(&headers)
    }

    #[test]
    fn lifetimes_are_read_in_every_form() {
        assert_eq!(response(&["max-age=003600"]).max_age, Some(3600));
        assert_eq!(response(&["MaX-AgE=\"60\""]).max_age, Some(60));
        assert_eq!(response(&["max-age=99999999999"]).max_age, Some(DELTA_SECONDS_MAX));
        assert_eq!(response(&["extension=\"max-age=3600\", max-age=1"]).max_age, Some(1));
        assert_eq!(response(&["max-age=1, max-age=3600"]).max_age, Some(1));
    }

    #[test]
    fn unreadable_lifetimes_are_zero() {
        for line in
            ["max-age='60'", "max-age=-1", "max-age=60.0", "max-age=", "max-age", "max-age= 60"]
        {
            assert_eq!(response(&[line]).max_age, Some(0), "{line}");
        }
        assert_eq!(response(&["max-age =60"]).max_age, None);
    }

    #[test]
    fn qualified_forms_name_fields() {
        let found = response(&["private=\"a, b\"", "no-cache=\"set-cookie\", no-cache"]);
        assert_eq!(
            found.private,
            DirectiveScope::Fields(vec![
                HeaderName::from_static("a"),
                HeaderName::from_static("b")
            ])
        );
        assert!(found.no_cache.is_whole());
    }

    #[test]
    fn words_that_restrict_count_behind_bad_syntax() {
        for line in [
            "max-age=60, private; foo",
            "max-age=60; private",
            "max-age=60 private",
            "max-age=60, private =x",
            "max-age=60, (PRIVATE)",
        ] {
            assert!(response(&[line]).private.is_whole(), "{line}");
        }
        for line in ["ext=\"open, no-store", "max-age=60;no-store", "a b, {no-store}"] {
            assert!(response(&[line]).no_store, "{line}");
        }
        assert!(response(&["max-age=60; must-revalidate"]).must_revalidate);
        assert!(response(&["max-age=60; no-cache"]).no_cache.is_whole());
        // What permits does not, nor does the value of a directive that is well formed.
        assert!(!response(&["max-age=60; public"]).public);
        for line in ["ext=\"no-store, private\"", "ext=no-store", "x-no-store", "no-stores; a"] {
            let found = response(&[line]);
            assert!(!found.no_store && !found.private.is_whole(), "{line}");
        }
    }

    #[test]
    fn immutable_means_the_same_with_an_argument_and_twice() {
        for line in ["immutable", "immutable=0", "immutable=\"no\"", "immutable, IMMUTABLE"] {
            assert!(response(&[line]).immutable, "{line}");
        }
    }

    #[test]
    fn unknown_directives_are_ignored() {
        let known = response(&["max-age=60, public"]);
        let more =
            response(&["x=1, max-age=60, y=\"no-store\", public, no-storage, community=\"a\""]);
        assert_eq!(more, known);
    }

    #[test]
    fn directives_of_requests_are_read_in_their_cautious_sense() {
        let request = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(line));
            RequestDirectives::parse(&headers)
        };
        let found =
            request("Max-Age=5, MIN-FRESH=7, max-stale=9, no-cache, no-store, only-if-cached");
        assert_eq!((found.max_age, found.min_fresh, found.max_stale), (Some(5), Some(7), Some(9)));
        assert!(found.no_cache && found.no_store && found.only_if_cached);
        assert_eq!(request("max-stale").max_stale, Some(DELTA_SECONDS_MAX));
        assert_eq!(request("max-stale=soon").max_stale, Some(0));
        assert_eq!(request("min-fresh=soon").min_fresh, Some(DELTA_SECONDS_MAX));
        assert_eq!(request("max-age=soon").max_age, Some(0));
        assert_eq!(request("public, x=1"), RequestDirectives::default());
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&line) {
                headers.insert(CACHE_CONTROL, value);
            }
            let _ = (ResponseDirectives::parse(&headers), RequestDirectives::parse(&headers));
        }
    }
}
