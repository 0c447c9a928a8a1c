//! Tags that name a group of stored responses, for purging: `Surrogate-Key` (separated by spaces),
//! `Cache-Tag` (separated by commas) and `Cache-Groups` (RFC 9875, a list of strings).

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::fields::members;

static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// More tags than this on one response are dropped.
pub const TAGS_MAX: usize = 256;
/// A tag longer than this many bytes is dropped.
pub const TAG_BYTES_MAX: usize = 256;

/// The tags of a response, without repetition, in order of appearance.
pub fn of(headers: &HeaderMap) -> Vec<Box<str>> {
    let mut tags = Vec::new();
    for line in headers.get_all(&SURROGATE_KEY) {
        for word in line.as_bytes().split(u8::is_ascii_whitespace) {
            add(&mut tags, word);
        }
    }
    for line in headers.get_all(&CACHE_TAG) {
        for word in members(line.as_bytes()) {
            add(&mut tags, word);
        }
    }
    for group in groups(headers, &CACHE_GROUPS) {
        add(&mut tags, group.as_bytes());
    }
    tags
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
        .take(TAGS_MAX)
        .collect()
}

fn add(tags: &mut Vec<Box<str>>, word: &[u8]) {
    if word.is_empty() || word.len() > TAG_BYTES_MAX || tags.len() >= TAGS_MAX {
        return;
    }
    if let Ok(word) = std::str::from_utf8(word)
        && !tags.iter().any(|tag| **tag == *word)
    {
        tags.push(word.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
