//! Reading header fields as lists, and the fields that never travel with a stored response.
//!
//! A list field may come as one line or as many (RFC 9110 §5.3); commas inside quoted strings do
//! not separate (§5.6.4). Everything works on bytes, because field values need not be UTF-8.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
};

/// Splits one field line at commas outside quoted strings; members are trimmed, empty ones are
/// skipped (RFC 9110 §5.6.1).
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_unquoted(line, b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// All members of all lines of a list field, in order.
pub fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|value| members(value.as_bytes()))
}

/// Splits at `separator` outside quoted strings, without trimming.
pub fn split_unquoted(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in text.iter().enumerate() {
            match *byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b if b == separator && !quoted => {
                    rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// The value of a quoted string with its escapes resolved, or `None` if it is not one.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next()?),
            b'"' => return None,
            other => out.push(*other),
        }
    }
    Some(out)
}

static PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// Whether a field concerns one connection only (RFC 9110 §7.6.1) or a proxy on it.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a field is kept out of stored responses (RFC 9111 §3.1).
pub fn is_never_stored(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || *name == PROXY_AUTHENTICATE
        || *name == PROXY_AUTHORIZATION
        || *name == PROXY_AUTHENTICATION_INFO
}

/// Whether `Connection` may nominate this field for removal. The ones it may not are those that
/// routing, framing and authorisation rest on: removing them would change what the message means.
fn may_be_nominated(name: &HeaderName) -> bool {
    const PROTECTED: [HeaderName; 6] = [
        HOST,
        CONTENT_LENGTH,
        http::header::AUTHORIZATION,
        http::header::CACHE_CONTROL,
        http::header::COOKIE,
        http::header::VIA,
    ];
    !PROTECTED.contains(name)
        && !name.as_str().starts_with("x-forwarded-")
        // By these the mesh says where a request goes and who sends it.
        && !name.as_str().starts_with("x-outrigger-")
        && name.as_str() != "forwarded"
        && name.as_str() != "cdn-loop"
}

/// Removes hop-by-hop fields and those that `Connection` nominates (RFC 9110 §7.6.1).
///
/// Fields that framing, routing or identity rest on cannot be nominated.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_nominated(headers);
    remove_all(headers, is_hop_by_hop);
}

/// Removes the fields with unwanted names. Each name is looked at once, which costs less than to look
/// up several that are seldom there.
pub fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        headers.remove(&name);
    }
}

/// Removes the fields that `Connection` nominates and leaves the standard hop-by-hop fields. A
/// request goes through this before its key is built: what the upstream will not see must not
/// choose what is stored.
pub fn strip_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: Vec<HeaderName> = list(headers, &CONNECTION)
        .filter(|member| {
            !member.eq_ignore_ascii_case(b"close") && !member.eq_ignore_ascii_case(b"keep-alive")
        })
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| may_be_nominated(name) && !is_hop_by_hop(name))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// The one value of a field that must not repeat; `None` when it is absent or repeated.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_do_not_separate() {
        let got: Vec<_> = members(br#" a, "b,\"c" ,, d "#).collect();
        assert_eq!(got, [&b"a"[..], br#""b,\"c""#, b"d"]);
    }

    #[test]
    fn connection_cannot_remove_what_the_message_rests_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "host, x-hop, close"), ("host", "a"), ("x-hop", "1")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert!(headers.contains_key("host"));
        assert!(!headers.contains_key("x-hop"));
        assert!(!headers.contains_key("connection"));
    }

    proptest::proptest! {
        #[test]
        fn splitting_never_panics_and_loses_no_byte(line in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let parts: Vec<_> = split_unquoted(&line, b',').collect();
            proptest::prop_assert_eq!(parts.join(&b','), line);
        }
    }
}
