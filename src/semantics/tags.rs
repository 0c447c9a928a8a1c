//! Tags that name a group of stored responses, for purging: `Surrogate-Key` (separated by spaces),
//! `Cache-Tag` (separated by commas) and `Cache-Groups` (RFC 9875, a list of strings).

use std::collections::HashSet;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::fields::members;

static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// A response with more tags than this is not stored: none may be dropped, or a purge by it would
/// leave the response in place.
pub const TAGS_MAX: usize = 2048;
/// A response with a tag of more bytes than this is not stored.
pub const TAG_BYTES_MAX: usize = 1024;

/// The tags of a response, without repetition, in order of appearance. Those beyond the limits are
/// left out, for which reason [`are_within_limits`] is asked before a response is stored.
pub fn of(headers: &HeaderMap) -> Vec<Box<str>> {
    let mut seen = HashSet::new();
    let mut tags: Vec<Box<str>> = Vec::new();
    each(headers, |word| {
        if let Some(tag) = usable(word)
            && tags.len() < TAGS_MAX
            && seen.insert(tag.to_owned())
        {
            tags.push(tag.into());
        }
    });
    tags
}

/// Whether all tags of a response can be kept, so that purges by each of them meet it.
pub fn are_within_limits(headers: &HeaderMap) -> bool {
    let mut distinct = HashSet::new();
    let mut good = true;
    each(headers, |word| match usable(word) {
        Some(tag) if distinct.len() < TAGS_MAX || distinct.contains(tag) => {
            distinct.insert(tag.to_owned());
        }
        _ => good = false,
    });
    good
}

/// A tag by which a purge can name a response.
fn usable(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok().filter(|tag| tag.len() <= TAG_BYTES_MAX)
}

fn each(headers: &HeaderMap, mut take: impl FnMut(&[u8])) {
    for line in headers.get_all(&SURROGATE_KEY) {
        let words = line.as_bytes().split(u8::is_ascii_whitespace);
        words.filter(|word| !word.is_empty()).for_each(&mut take);
    }
    for line in headers.get_all(&CACHE_TAG) {
        members(line.as_bytes()).for_each(&mut take);
    }
    for group in groups(headers, &CACHE_GROUPS) {
        if !group.is_empty() {
            take(group.as_bytes());
        }
    }
}

/// The groups that a response to an unsafe request invalidates (RFC 9875 §3).
pub fn invalidated_groups(headers: &HeaderMap) -> Vec<String> {
    groups(headers, &CACHE_GROUP_INVALIDATION)
}

fn groups(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let Ok(list) = Parser::new(&lines.join(&b',')).parse::<List>() else { return Vec::new() };
    list.iter()
        .filter_map(|entry| match entry {
            ListEntry::Item(item) => match &item.bare_item {
                // As the other fields have tags, and as operators name them.
                BareItem::String(text) => Some(text.as_str().trim().to_owned()),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn tags_that_cannot_be_kept_are_told_and_not_dropped() {
        let limits = |name: &HeaderName, lines: &[Vec<u8>]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(name, HeaderValue::from_bytes(line).unwrap());
            }
            are_within_limits(&headers)
        };
        let many = |n: usize| (0..n).map(|n| format!("t{n}")).collect::<Vec<_>>();
        for (name, separator) in [(&SURROGATE_KEY, " "), (&CACHE_TAG, ",")] {
            let joined = |n| many(n).join(separator).into_bytes();
            assert!(limits(name, &[joined(TAGS_MAX)]));
            assert!(limits(name, &[joined(TAGS_MAX), b"t1".to_vec()]), "it is there already");
            assert!(!limits(name, &[joined(TAGS_MAX), b"other".to_vec()]));
            assert!(limits(name, &[vec![b'x'; TAG_BYTES_MAX]]));
            assert!(!limits(name, &[b"a".to_vec(), vec![b'x'; TAG_BYTES_MAX + 1]]));
            assert!(!limits(name, &[b"caf\xe9".to_vec()]));
            assert!(limits(name, &["caf\u{e9}".as_bytes().to_vec()]));
        }
        let groups = format!("\"{}\"", many(TAGS_MAX + 1).join("\", \""));
        assert!(!limits(&CACHE_GROUPS, &[groups.into_bytes()]));
    }

    #[test]
    fn as_many_groups_of_such_a_length_are_read_as_rfc_9875_asks() {
        let groups: Vec<String> = (0..32).map(|n| format!("{n:0>32}")).collect();
        let list = groups.iter().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ");
        let mut headers = HeaderMap::new();
        for name in [&CACHE_GROUPS, &CACHE_GROUP_INVALIDATION] {
            headers.append(name, HeaderValue::from_str(&list).unwrap());
        }
        assert!(of(&headers).iter().map(|tag| &**tag).eq(&groups));
        assert_eq!(invalidated_groups(&headers), groups);
    }

    #[test]
    fn every_spelling_of_a_tag_is_read() {
        let mut headers = HeaderMap::new();
        headers.append(&SURROGATE_KEY, HeaderValue::from_static("a  b"));
        headers.append(&CACHE_TAG, HeaderValue::from_static("b, c d"));
        headers.append(&CACHE_GROUPS, HeaderValue::from_static("\"e\";x=1, \"f\", 5"));
        let got: Vec<String> = of(&headers).iter().map(|tag| tag.to_string()).collect();
        assert_eq!(got, ["a", "b", "c d", "e", "f"]);
    }

    #[test]
    fn a_broken_list_names_no_group() {
        let mut headers = HeaderMap::new();
        headers.append(&CACHE_GROUPS, HeaderValue::from_static("\"a\", \"b"));
        assert!(of(&headers).is_empty());
    }
}
