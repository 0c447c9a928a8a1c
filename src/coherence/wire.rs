//! The form of events in the log.
//!
//! Pods of two versions read one log during a rollout. A pod from before `also` existed sees of an
//! event for a URL the text, which it shows and does not interpret, and `uri_digest`, which it takes
//! as the one canonical URI that is purged. That is the first digest of the writer: the one that such
//! a pod would have found itself, for a request without further header fields, or with those of the
//! write. What was stored under other routes, such a pod keeps. A prefix it compares as it is written.
//!
//! What such a pod has written has no `also` and no `rules`, and a URL that is canonical under its own
//! policy and may be cut.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{Action, Content, Matcher};

/// An event as JSON has it.
#[derive(Debug, Serialize, Deserialize)]
struct WireContent {
    matcher: WireMatcher,
    action: Action,
    by: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pod: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri_digest: Option<HexDigest>,
    /// Digests of further canonical URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<HexDigest>,
    /// Where the URL may be cut: the rules under which the digests were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<HexDigest>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireMatcher {
    Url(String),
    Tag(String),
    Prefix(String),
    All,
}

/// JSON has no integers of 128 bits.
#[derive(Clone, Copy, Debug)]
struct HexDigest(u128);

impl Serialize for HexDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:x}", self.0))
    }
}

impl<'de> Deserialize<'de> for HexDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(HexDigest).map_err(de::Error::custom)
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireContent::from(self.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WireContent::deserialize(deserializer).map(Content::from)
    }
}

impl From<Content> for WireContent {
    fn from(content: Content) -> Self {
        let (matcher, digests, rules) = match content.matcher {
            Matcher::Url { uri, digests, rules } => (WireMatcher::Url(uri), digests, rules),
            Matcher::Tag(tag) => (WireMatcher::Tag(tag), Vec::new(), None),
            Matcher::Prefix(prefix) => (WireMatcher::Prefix(prefix), Vec::new(), None),
            Matcher::All => (WireMatcher::All, Vec::new(), None),
        };
        let mut digests = digests.into_iter().map(HexDigest);
        WireContent {
            matcher,
            action: content.action,
            by: content.by,
            pod: content.pod,
            reason: content.reason,
            uri_digest: digests.next(),
            also: digests.collect(),
            rules: rules.map(HexDigest),
        }
    }
}

impl From<WireContent> for Content {
    fn from(wire: WireContent) -> Self {
        let digests = wire.uri_digest.iter().chain(&wire.also).map(|digest| digest.0);
        let matcher = match wire.matcher {
            WireMatcher::Url(uri) => {
                let rules = wire.rules.map(|rules| rules.0);
                Matcher::Url { uri, digests: digests.collect(), rules }
            }
            WireMatcher::Tag(tag) => Matcher::Tag(tag),
            WireMatcher::Prefix(prefix) => Matcher::Prefix(prefix),
            WireMatcher::All => Matcher::All,
        };
        let WireContent { action, by, pod, reason, .. } = wire;
        Content { matcher, action, by, pod, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PurgeMode;

    #[test]
    fn an_event_of_a_pod_that_names_one_digest_is_understood() {
        let text = r#"{"matcher":{"url":"http://a/b"},"action":{"purge":{"mode":"soft"}},"by":"admin","pod":"cart-0","uri_digest":"ff"}"#;
        let content: Content = serde_json::from_str(text).unwrap();
        let matcher =
            Matcher::Url { uri: "http://a/b".to_owned(), digests: vec![255], rules: None };
        assert_eq!(content.matcher, matcher);
        assert_eq!(content.action, Action::Purge { mode: PurgeMode::Soft, ends: None });
        assert_eq!(serde_json::to_string(&content).unwrap(), text);
        let all = r#"{"matcher":"all","action":"reset","by":"log"}"#;
        assert_eq!(serde_json::from_str::<Content>(all).unwrap().matcher, Matcher::All);
    }

    #[test]
    fn a_pod_that_knows_one_digest_finds_the_first() {
        let uri = "http://a/b?c".to_owned();
        let matcher = Matcher::Url { uri, digests: vec![1, 255], rules: None };
        let content = Content { matcher, ..Content::reset("cart-0") };
        let value = serde_json::to_value(&content).unwrap();
        assert_eq!(value["matcher"]["url"], "http://a/b?c");
        assert_eq!((&value["uri_digest"], &value["also"]), (&"1".into(), &["ff"][..].into()));
    }
}
