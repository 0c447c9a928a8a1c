//! Folding the fields by which clients negotiate into few values, so that clients that list the same
//! in other words share a stored response. What is folded is what the upstream then sees too: the
//! response that it selects is the one that the folded value selects (RFC 9110 §12.5, RFC 9111 §4.1).

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue};

use crate::fields::{list, split_unquoted};
use crate::vary::thousandths;

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It stays as the client sent it.
    AsSent,
    /// It has this value.
    Value(HeaderValue),
    /// It goes: the client accepts nothing that is offered, and gets what is served to anybody.
    Absent,
}

/// Folds `Accept-Encoding` into those of the `offered` codings (in lower case) that the client
/// accepts, in the order in which they are offered (RFC 9110 §12.5.3). Where it accepts none of them,
/// that is `identity`. A request without the field stays without it.
pub fn encodings<T: AsRef<str>>(headers: &HeaderMap, offered: &[T]) -> Folded {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Folded::AsSent;
    }
    let listed = weighed(headers, &ACCEPT_ENCODING);
    let weight = |coding: &str| {
        let of = |name: &[u8]| {
            // The old names of the same codings (RFC 9110 §8.4.1).
            let name = name.strip_prefix(b"x-").filter(|n| *n == b"gzip" || *n == b"compress");
            name.map(|name| name == coding.as_bytes())
        };
        let named = listed
            .iter()
            .find(|(name, _)| of(name).unwrap_or_else(|| name.as_slice() == coding.as_bytes()));
        named.map(|(_, weight)| *weight)
    };
    let others = weight("*");
    let accepts = |coding: &str| weight(coding).or(others).is_some_and(|weight| weight > 0);
    let refuses_identity = weight("identity").or(others) == Some(0);
    let mut accepted: Vec<&str> =
        offered.iter().map(AsRef::as_ref).filter(|c| accepts(c)).collect();
    match (accepted.is_empty(), refuses_identity) {
        // The upstream may have a coding that is not offered here.
        (true, true) => return Folded::AsSent,
        (true, false) => accepted.push("identity"),
        (false, true) => accepted.push("identity;q=0"),
        (false, false) => {}
    }
    value(&accepted.join(", "))
}

/// Folds `Accept-Language` into the one of the `offered` tags that the client wants most: by its
/// weights, then by their order. A range takes the tag that it names, the nearest shorter one (RFC
/// 4647 §3.4), or one that it begins.
pub fn languages<T: AsRef<str>>(headers: &HeaderMap, offered: &[T]) -> Folded {
    if !headers.contains_key(ACCEPT_LANGUAGE) {
        return Folded::AsSent;
    }
    let mut listed = weighed(headers, &ACCEPT_LANGUAGE);
    listed.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    let refused = |tag: &str| {
        listed.iter().any(|(range, weight)| *weight == 0 && begins(tag.as_bytes(), range))
    };
    let tags = offered.iter().map(AsRef::as_ref).filter(|tag| !refused(tag));
    let wanted = listed.iter().filter(|(_, weight)| *weight > 0);
    let chosen = wanted.into_iter().find_map(|(range, _)| {
        if range == b"*" {
            return tags.clone().next();
        }
        let mut shorter = Some(range.as_slice());
        while let Some(range) = shorter {
            if let Some(tag) = tags.clone().find(|tag| tag.as_bytes().eq_ignore_ascii_case(range)) {
                return Some(tag);
            }
            let cut = range.iter().rposition(|byte| *byte == b'-');
            shorter = cut.map(|cut| &range[..cut]);
        }
        tags.clone().find(|tag| begins(tag.as_bytes(), range))
    });
    chosen.map_or(Folded::Absent, value)
}

/// Whether a tag is of a range: the same, or longer by whole subtags (RFC 4647 §3.3.1).
fn begins(tag: &[u8], range: &[u8]) -> bool {
    let head = tag.get(..range.len());
    let whole = tag.get(range.len()).is_none_or(|next| *next == b'-');
    whole && head.is_some_and(|head| head.eq_ignore_ascii_case(range))
}

fn value(text: &str) -> Folded {
    HeaderValue::from_str(text).map_or(Folded::AsSent, Folded::Value)
}

/// The members of a negotiation field in lower case, with their weights in thousandths. A weight that
/// cannot be read counts as one.
fn weighed(headers: &HeaderMap, name: &HeaderName) -> Vec<(Vec<u8>, u32)> {
    let member = |member: &[u8]| {
        let mut parts = split_unquoted(member, b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let stated = parts.find_map(|part| match part {
            [b'q' | b'Q', b'=', weight @ ..] => thousandths(weight),
            _ => None,
        });
        (name, stated.unwrap_or(1000))
    };
    list(headers, name).map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(name: HeaderName, value: Option<&'static str>, offered: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(&name, HeaderValue::from_static(value));
        }
        let folded = match name {
            ACCEPT_ENCODING => encodings(&headers, offered),
            _ => languages(&headers, offered),
        };
        match folded {
            Folded::AsSent => "as sent".to_owned(),
            Folded::Absent => "absent".to_owned(),
            Folded::Value(value) => value.to_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn codings_that_are_accepted_stay_in_the_order_in_which_they_are_offered() {
        for (sent, becomes) in [
            (None, "as sent"),
            (Some("gzip, deflate, br"), "br, gzip"),
            (Some("br;q=0.1, GZIP;q=1.0"), "br, gzip"),
            (Some("gzip"), "gzip"),
            (Some("x-gzip"), "gzip"),
            (Some("gzip;q=0, br"), "br"),
            (Some("*"), "br, gzip"),
            (Some("*;q=0.5, br;q=0"), "gzip"),
            (Some("deflate"), "identity"),
            (Some("identity"), "identity"),
            (Some(""), "identity"),
            (Some("gzip, identity;q=0"), "gzip, identity;q=0"),
            (Some("zstd, *;q=0"), "as sent"),
            (Some("gzip, *;q=0"), "gzip, identity;q=0"),
            (Some("gzip;q=nonsense"), "gzip"),
        ] {
            assert_eq!(folded(ACCEPT_ENCODING, sent, &["br", "gzip"]), becomes, "{sent:?}");
        }
        assert_eq!(folded(ACCEPT_ENCODING, Some("gzip"), &[]), "identity");
    }

    #[test]
    fn the_language_that_is_wanted_most_stays() {
        for (sent, becomes) in [
            (None, "as sent"),
            (Some("de"), "de"),
            (Some("de-CH, de;q=0.9, en;q=0.8"), "de"),
            (Some("en;q=0.8, de;q=0.9"), "de"),
            (Some("EN-us"), "en"),
            (Some("pt"), "pt-BR"),
            (Some("pt-PT"), "absent"),
            (Some("fr"), "absent"),
            (Some("fr, *;q=0.1"), "en"),
            (Some("en;q=0, *"), "de"),
            (Some("d"), "absent"),
        ] {
            assert_eq!(folded(ACCEPT_LANGUAGE, sent, &["en", "de", "pt-BR"]), becomes, "{sent:?}");
        }
    }
}
