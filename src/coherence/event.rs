//! What a purge says, and what the log says besides.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::Seq;

/// Which stored responses an event concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matcher {
    /// All responses stored for one canonical URI, in every partition and variant.
    Url(String),
    /// All that carry a tag.
    Tag(String),
    /// All whose canonical URI begins so.
    Prefix(String),
    /// Everything.
    All,
}

impl Matcher {
    /// The kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Tag(_) => "tag",
            Self::Prefix(_) => "prefix",
            Self::All => "all",
        }
    }
}

/// What becomes of the responses concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeMode {
    /// They are never served again.
    #[default]
    Hard,
    /// They are stale: served only within their stale windows, and validated with the upstream.
    Soft,
}

impl PurgeMode {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Voids what was stored before it.
    Purge {
        /// Hard or soft.
        mode: PurgeMode,
        /// The hold that it ends.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ends: Option<Seq>,
    },
    /// Voids what was stored before it, and keeps anything from being served or stored until a
    /// purge ends it: a write is on its way to the upstream.
    Hold,
    /// The log began anew, and what it said before is lost: voids everything before it.
    Reset,
}

impl Action {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purge { mode, .. } => mode.as_str(),
            Self::Hold => "hold",
            Self::Reset => "reset",
        }
    }
}

/// A purge before it has a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRequest {
    /// Which responses.
    pub matcher: Matcher,
    /// What becomes of them.
    pub mode: PurgeMode,
    /// Who asked: `admin`, or `unsafe-method`.
    pub by: &'static str,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// Digest of the URI, for [`Matcher::Url`].
    pub uri_digest: u128,
}

/// What an event says, without its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Which responses.
    pub matcher: Matcher,
    /// What it does.
    pub action: Action,
    /// Who asked.
    pub by: Cow<'static, str>,
    /// The pod that asked.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub pod: Cow<'static, str>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Digest of the URI, for [`Matcher::Url`]; hexadecimal in the log.
    #[serde(default, with = "hex_digest", skip_serializing_if = "is_zero")]
    pub uri_digest: u128,
}

fn is_zero(digest: &u128) -> bool {
    *digest == 0
}

mod hex_digest {
    //! JSON has no integers of 128 bits.

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        digest: &u128,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{digest:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}

impl Content {
    /// A purge by this pod.
    pub fn purge(request: PurgeRequest, ends: Option<Seq>, pod: &str) -> Self {
        let action = Action::Purge { mode: request.mode, ends };
        Self::of(request, action, pod)
    }

    /// A hold by this pod.
    pub fn hold(request: PurgeRequest, pod: &str) -> Self {
        Self::of(request, Action::Hold, pod)
    }

    /// The beginning of a log.
    pub fn reset(pod: &str) -> Self {
        Content {
            matcher: Matcher::All,
            action: Action::Reset,
            by: Cow::Borrowed("log"),
            pod: Cow::Owned(pod.to_owned()),
            reason: Some("the log began anew".to_owned()),
            uri_digest: 0,
        }
    }

    fn of(request: PurgeRequest, action: Action, pod: &str) -> Self {
        // The digest decides about a URL, and clients choose how long it is.
        let matcher = match request.matcher {
            Matcher::Url(url) => Matcher::Url(cut(url, URL_BYTES_MAX)),
            other => other,
        };
        Content {
            matcher,
            action,
            by: Cow::Borrowed(request.by),
            pod: Cow::Owned(pod.to_owned()),
            reason: request.reason.map(|reason| cut(reason, REASON_BYTES_MAX)),
            uri_digest: request.uri_digest,
        }
    }
}

/// Bytes of a URL that are kept for people to read.
const URL_BYTES_MAX: usize = 512;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// An event with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its position.
    pub seq: Seq,
    /// When it was appended, milliseconds since the Unix epoch.
    pub at_unix_millis: u64,
    /// What it says.
    pub content: Content,
}

/// An event as a shared log hands it out: with the position of the one before, by which a reader
/// sees that nothing is missing between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub seq: Seq,
    /// The position of the event before it; zero if it is the first.
    pub prev: Seq,
    /// What it says. `None` if it cannot be understood: then it is taken as a purge of everything.
    pub content: Option<Content>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_travel_as_json() {
        let request = PurgeRequest {
            matcher: Matcher::Url("http://a/".to_owned()),
            mode: PurgeMode::Soft,
            by: "admin",
            reason: Some("price change".to_owned()),
            uri_digest: u128::MAX - 5,
        };
        for content in [
            Content::purge(request.clone(), None, "cart-0"),
            Content::purge(request.clone(), Some(7), "cart-0"),
            Content::hold(request, "cart-0"),
            Content::reset("cart-0"),
        ] {
            let text = serde_json::to_string(&content).unwrap();
            assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content, "{text}");
        }
    }
}
