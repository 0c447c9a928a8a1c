//! What a 304 or the response to HEAD changes in a stored response (RFC 9111 §3.2, §4.3.4,
//! §4.3.5).

use http::HeaderValue;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED,
};

use crate::conditional::{strong_match, weak_match};
use crate::fields::is_never_stored;

static CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Whether a 304 speaks of the stored response (RFC 9111 §4.3.4): a strong validator in it must
/// be the stored one; without one, a weak validator must agree; without any, the response that
/// was asked about is meant.
///
/// A strong tag also selects a stored response whose weak tag has the same opaque part: the upstream
/// was asked about that tag alone, and weakens it on a 200 only
/// (`src/decisions/027-weakened-tags.md`). The stored tag stays weak.
pub fn selects(not_modified: &HeaderMap, stored: &HeaderMap) -> bool {
    if let Some(tag) = not_modified.get(ETAG) {
        let Some(have) = stored.get(ETAG) else { return false };
        let weak = tag.as_bytes().starts_with(b"W/") || have.as_bytes().starts_with(b"W/");
        return strong_match(tag.as_bytes(), have.as_bytes())
            || (weak && weak_match(tag.as_bytes(), have.as_bytes()));
    }
    match (not_modified.get(LAST_MODIFIED), stored.get(LAST_MODIFIED)) {
        (Some(new), Some(have)) => new == have || stored.contains_key(ETAG),
        _ => true,
    }
}

/// The stored header fields after an update (RFC 9111 §3.2): each field of the newer response
/// replaces all stored lines of its name. Fields that describe the stored bytes stay.
pub fn updated(stored: &HeaderMap, newer: &HeaderMap) -> HeaderMap {
    let mut headers = stored.clone();
    // The stored Age belonged to the old response; the new one brings its own or none.
    headers.remove(AGE);
    for name in newer.keys() {
        if describes_the_bytes(name) || is_never_stored(name) {
            continue;
        }
        let is_weak = |tag: &HeaderValue| tag.as_bytes().starts_with(b"W/");
        if *name == ETAG && stored.get(ETAG).is_some_and(is_weak) {
            // The stored bytes are no more than what the weak tag says of them.
            continue;
        }
        headers.remove(name);
        for value in newer.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

fn describes_the_bytes(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name) || *name == CONTENT_MD5
}

/// Whether a response to HEAD shows that the stored GET response is still the current one
/// (RFC 9111 §4.3.5). If not, the stored response must be taken as stale.
pub fn head_agrees(head: &HeaderMap, stored: &HeaderMap) -> bool {
    [ETAG, LAST_MODIFIED, CONTENT_LENGTH].iter().all(|name| {
        match (head.get(name), stored.get(name)) {
            (Some(new), Some(have)) => new == have,
            (Some(_), None) => false,
            (None, _) => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn all_fields_are_freshened_but_those_of_the_body() {
        let stored = map(&[
            ("etag", "\"a\""),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("x-kept", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=1"),
            ("age", "30"),
        ]);
        let newer = map(&[
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("set-cookie", "a=2"),
            ("x-new", "1"),
            ("connection", "close"),
        ]);
        let got = updated(&stored, &newer);
        assert_eq!(got["content-length"], "5");
        assert_eq!(got["content-encoding"], "gzip");
        assert_eq!(got.get_all("set-cookie").iter().count(), 1);
        assert_eq!(
            (&got["x-kept"], &got["x-new"]),
            (&HeaderValue::from_static("1"), &HeaderValue::from_static("1"))
        );
        assert!(!got.contains_key("connection") && !got.contains_key("age"));
    }

    #[test]
    fn a_304_for_another_representation_selects_nothing() {
        let stored = map(&[("etag", "\"a\"")]);
        assert!(selects(&map(&[("etag", "\"a\"")]), &stored));
        assert!(selects(&map(&[]), &stored));
        assert!(!selects(&map(&[("etag", "\"b\"")]), &stored));
        assert!(selects(&map(&[("etag", "W/\"a\"")]), &map(&[("etag", "W/\"a\"")])));
        assert!(!selects(&map(&[("etag", "\"b\"")]), &map(&[("etag", "W/\"a\"")])));
    }

    #[test]
    fn a_304_with_the_strong_form_of_a_weakened_tag_selects_and_leaves_it_weak() {
        let stored = map(&[("etag", "W/\"a\"")]);
        let strong = map(&[("etag", "\"a\""), ("x-new", "1")]);
        assert!(selects(&strong, &stored));
        let got = updated(&stored, &strong);
        assert_eq!((&got["etag"], &got["x-new"]), (&stored["etag"], &strong["x-new"]));
    }

    #[test]
    fn head_with_another_length_disagrees() {
        let stored = map(&[("content-length", "5")]);
        assert!(head_agrees(&map(&[("content-length", "5")]), &stored));
        assert!(!head_agrees(&map(&[("content-length", "6")]), &stored));
    }
}
