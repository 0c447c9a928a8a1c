//! Targeted cache control (RFC 9213): fields that speak to one class of cache and then replace
//! `Cache-Control` and `Expires` for it.
//!
//! The default target list is `Outrigger-Cache-Control`, then `CDN-Cache-Control`. The first one
//! that is present, valid and not empty decides alone. A field that is not a valid Structured Field
//! dictionary is ignored as a whole (§2.1), a directive of the wrong type likewise.
//!
//! `Surrogate-Control` (W3C Edge Architecture note, 2001) can be put on the list. It is older than
//! Structured Fields: its directives read like `Cache-Control`, and one with a parameter
//! (`max-age=60;name`) speaks only to the surrogate of that name. `X-Accel-Expires` of nginx can be put
//! there too.

use http::header::{CACHE_CONTROL, DATE, HeaderName};
use http::{HeaderMap, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::directives::{DELTA_SECONDS_MAX, DirectiveScope, ResponseDirectives};
use crate::fields::{list, single, split_unquoted};
use crate::time::{UnixMillis, parse_http_date};

/// The targeted field that names this product.
pub static OUTRIGGER_CACHE_CONTROL: HeaderName = HeaderName::from_static("outrigger-cache-control");
/// The targeted field for caches that act on behalf of the origin.
pub static CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The older field of the Edge Architecture note; obeyed only where policy lists it.
pub static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// nginx's field: a lifetime in seconds, `0` for none, or `@` and the time at which it ends in seconds
/// since the epoch; obeyed only where policy lists it.
pub static X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");
/// The device token under which `Surrogate-Control` can address this cache.
pub const SURROGATE_DEVICE: &str = "outrigger";

/// The targeted fields obeyed when policy names none.
pub fn default_targets() -> Vec<HeaderName> {
    vec![OUTRIGGER_CACHE_CONTROL.clone(), CDN_CACHE_CONTROL.clone()]
}

/// The directives that concern this cache, and whether a targeted field gave them (then `Expires`
/// does not count either, RFC 9213 §2.2).
pub fn effective_directives(
    headers: &HeaderMap,
    targets: &[HeaderName],
) -> (ResponseDirectives, bool) {
    let mut unreadable = ResponseDirectives::default();
    for name in targets {
        if !headers.contains_key(name) {
            continue;
        }
        let found = if *name == SURROGATE_CONTROL {
            parse_surrogate(headers)
        } else if *name == X_ACCEL_EXPIRES {
            parse_accel(headers)
        } else {
            parse_targeted(headers, name)
        };
        if let Some(directives) = found {
            return (unreadable.and_restrict(directives), true);
        }
        // It is ignored as a whole (RFC 9213 §2.1), but for the words that keep a response out of
        // shared stores.
        headers.get_all(name).iter().for_each(|line| unreadable.restrict(line.as_bytes()));
    }
    (unreadable.and_restrict(ResponseDirectives::parse(headers)), false)
}

fn parse_targeted(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let mut lines = headers.get_all(name).iter();
    let mut joined = lines.next()?.as_bytes().to_vec();
    for line in lines {
        joined.push(b',');
        joined.extend_from_slice(line.as_bytes());
    }
    let dictionary: Dictionary = Parser::new(&joined).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut found = ResponseDirectives::default();
    for (key, entry) in &dictionary {
        let ListEntry::Item(item) = entry else { continue };
        apply(&mut found, key.as_str(), &item.bare_item);
    }
    Some(found)
}

fn parse_surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let mut ours = HeaderMap::new();
    for member in list(headers, &SURROGATE_CONTROL) {
        let mut parts = split_unquoted(member, b';');
        let directive = parts.next()?.trim_ascii();
        let for_us =
            parts.next().is_none_or(|target| target.trim_ascii() == SURROGATE_DEVICE.as_bytes());
        if for_us && let Ok(value) = HeaderValue::from_bytes(directive) {
            ours.append(CACHE_CONTROL, value);
        }
    }
    let directives = ResponseDirectives::parse(&ours);
    (directives != ResponseDirectives::default()).then_some(directives)
}

/// A time at which the lifetime ends counts from `Date`, as `Expires` does (RFC 9111 §4.2.1). `off` and
/// what cannot be read say nothing.
fn parse_accel(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let text = single(headers, &X_ACCEL_EXPIRES)?.to_str().ok()?.trim();
    let seconds: i64 = match text.strip_prefix('@') {
        None => text.parse().ok()?,
        Some(end) => {
            let date = single(headers, &DATE)?.as_bytes();
            let end: i64 = end.parse().ok()?;
            // The century of a two-digit year does not matter here.
            let begin = parse_http_date(date, UnixMillis::from_secs(end))?.as_secs();
            end.saturating_sub(begin)
        }
    };
    let lifetime = seconds.clamp(0, i64::from(DELTA_SECONDS_MAX)) as u32;
    let no_store = seconds <= 0;
    let max_age = Some(lifetime).filter(|_| !no_store);
    Some(ResponseDirectives { no_store, max_age, ..ResponseDirectives::default() })
}

fn apply(found: &mut ResponseDirectives, key: &str, value: &BareItem) {
    let seconds = match value {
        BareItem::Integer(number) => {
            Some(i64::from(*number).clamp(0, i64::from(DELTA_SECONDS_MAX)) as u32)
        }
        _ => None,
    };
    let on = matches!(value, BareItem::Boolean(true));
    let scope = match value {
        BareItem::Boolean(true) | BareItem::String(_) => DirectiveScope::Whole,
        _ => DirectiveScope::Absent,
    };
    match key {
        "max-age" => found.max_age = seconds,
        "s-maxage" => found.s_maxage = seconds,
        "stale-while-revalidate" => found.stale_while_revalidate = seconds,
        "stale-if-error" => found.stale_if_error = seconds,
        "no-store" => found.no_store = on,
        "no-cache" => found.no_cache = scope,
        "private" => found.private = scope,
        "public" => found.public = on,
        "must-revalidate" => found.must_revalidate = on,
        "proxy-revalidate" => found.proxy_revalidate = on,
        "must-understand" => found.must_understand = on,
        "immutable" => found.immutable = on,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(HeaderName, &'static str)]) -> (ResponseDirectives, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        effective_directives(&headers, &default_targets())
    }

    #[test]
    fn the_targeted_field_replaces_cache_control() {
        let (found, targeted) =
            with(&[(CDN_CACHE_CONTROL.clone(), "max-age=60"), (CACHE_CONTROL, "no-store")]);
        assert!(targeted && !found.no_store);
        assert_eq!(found.max_age, Some(60));
    }

    #[test]
    fn values_of_the_wrong_type_and_other_targets_count_for_nothing() {
        let line = "max-age=1.5, s-maxage=?1, no-store=5, public=\"yes\", immutable=1, max-stale";
        let (found, targeted) = with(&[(CDN_CACHE_CONTROL.clone(), line)]);
        assert!(targeted);
        assert_eq!(found, ResponseDirectives::default());
        let other = HeaderName::from_static("other-cache-control");
        let (found, targeted) = with(&[(other, "no-store"), (CACHE_CONTROL, "max-age=1")]);
        assert!(!targeted && !found.no_store);
        let (found, targeted) =
            with(&[(CDN_CACHE_CONTROL.clone(), ""), (CACHE_CONTROL, "max-age=1")]);
        assert!(!targeted);
        assert_eq!(found.max_age, Some(1));
    }

    #[test]
    fn our_own_field_comes_first() {
        let (found, _) = with(&[
            (CDN_CACHE_CONTROL.clone(), "max-age=60"),
            (OUTRIGGER_CACHE_CONTROL.clone(), "no-store"),
        ]);
        assert!(found.no_store && found.max_age.is_none());
    }

    #[test]
    fn what_is_no_structured_field_is_ignored() {
        let (found, targeted) =
            with(&[(CDN_CACHE_CONTROL.clone(), "max-age=60, &"), (CACHE_CONTROL, "max-age=1")]);
        assert!(!targeted);
        assert_eq!(found.max_age, Some(1));
        let (found, _) = with(&[(CDN_CACHE_CONTROL.clone(), "max-age=\"60\"")]);
        assert_eq!(found.max_age, None);
    }

    #[test]
    fn what_cannot_be_read_still_forbids() {
        for (value, private) in
            [("max-age=60, no-store; &", false), ("private, max-age=60, &", true)]
        {
            let (found, targeted) =
                with(&[(CDN_CACHE_CONTROL.clone(), value), (CACHE_CONTROL, "max-age=1")]);
            assert!(!targeted, "{value}");
            assert_eq!((found.no_store, found.private.is_whole()), (!private, private), "{value}");
            assert_eq!(found.max_age, Some(1), "{value}");
        }
    }

    #[test]
    fn every_directive_is_understood_in_a_targeted_field() {
        let numbers = "max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4";
        let flags = "no-store, no-cache, private, public, must-revalidate, proxy-revalidate, \
                     must-understand, immutable";
        for line in [numbers, flags] {
            let targeted = with(&[(CDN_CACHE_CONTROL.clone(), line)]);
            let plain = with(&[(CACHE_CONTROL, line)]);
            assert_eq!(targeted.0, plain.0, "{line}");
            assert!(targeted.1 && !plain.1, "{line}");
            assert_ne!(targeted.0, ResponseDirectives::default());
        }
    }
}
