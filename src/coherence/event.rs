//! The events of the purge log: purges, holds, and the beginning of a log.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use strum::IntoStaticStr;

use crate::Seq;

/// Which stored responses an event concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Matcher {
    /// All responses stored for one URI, in every partition and variant.
    Url {
        /// The URI as it was sent: each pod finds out by its own policy under which canonical URIs
        /// it has responses for it. A longer one than [`TEXT_BYTES_MAX`] is cut, and ends in `…`.
        uri: String,
        /// Digests of the canonical URIs that it has under the policy of the pod that writes the
        /// event. They count in every pod, besides those that the pod finds itself.
        digests: Vec<u128>,
        /// Where the URI may be cut: the rules ([`Canonicaliser::rules`]) under which the digests
        /// were found. A pod with the same rules needs no more than these. `None` also where the
        /// writer is of an older version.
        ///
        /// [`Canonicaliser::rules`]: crate::Canonicaliser::rules
        rules: Option<u128>,
    },
    /// All responses that carry a tag.
    Tag(String),
    /// All responses whose canonical URI begins with this.
    Prefix(String),
    /// All responses that are stored.
    All,
}

impl Matcher {
    /// Names a URI as it was sent, with the digests that it has under the writer's rules.
    pub fn url(mut uri: String, digests: Vec<u128>, rules: u128) -> Self {
        if uri.len() > TEXT_BYTES_MAX {
            uri = cut(uri, TEXT_BYTES_MAX - ELLIPSIS.len_utf8());
        }
        let rules = is_cut(&uri).then_some(rules);
        Self::Url { uri, digests, rules }
    }

    /// The kind, as metrics name it.
    pub fn kind(&self) -> &'static str {
        self.into()
    }

    /// Whether a stored response is concerned, for a URI by the digests alone. While its tags are
    /// not known, any tag may be one of them.
    pub fn concerns(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        match self {
            Self::Url { digests, .. } => digests.contains(&uri_digest),
            Self::Tag(tag) => tags.is_none_or(|tags| tags.iter().any(|have| **have == **tag)),
            Self::Prefix(prefix) => uri.starts_with(prefix.as_bytes()),
            Self::All => true,
        }
    }
}

/// What operators are shown: the kind with its text.
impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Shown<'a> {
            Url(&'a str),
            Tag(&'a str),
            Prefix(&'a str),
            All,
        }
        match self {
            Self::Url { uri, .. } => Shown::Url(uri),
            Self::Tag(tag) => Shown::Tag(tag),
            Self::Prefix(prefix) => Shown::Prefix(prefix),
            Self::All => Shown::All,
        }
        .serialize(serializer)
    }
}

/// What becomes of the responses concerned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum PurgeMode {
    /// They are never served again.
    #[default]
    Hard,
    /// They are stale: served only within their stale windows, and validated with the upstream.
    Soft,
}

impl PurgeMode {
    /// The stable name in metrics, logs and answers to operators.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Invalidates what was stored before it.
    Purge {
        /// Whether the responses may still be served stale.
        mode: PurgeMode,
        /// Position of the hold that it ends.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ends: Option<Seq>,
    },
    /// Invalidates what was stored before it, and keeps matching responses from being served or
    /// stored until a purge ends it: a write is on its way to the upstream.
    Hold,
    /// The log began anew, and its earlier events are lost: invalidates everything before it.
    Reset,
}

impl Action {
    /// The stable name in metrics, logs and answers to operators.
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
    /// Which responses are concerned.
    pub matcher: Matcher,
    /// Whether they may still be served stale.
    pub mode: PurgeMode,
    /// Who asked: `admin`, or `unsafe-method`.
    pub by: &'static str,
    /// Why, as the one who asked has put it.
    pub reason: Option<String>,
}

/// The content of an event, without its position. Its form in the log is in `wire.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which responses are concerned.
    pub matcher: Matcher,
    /// What the event does.
    pub action: Action,
    /// Who asked: `admin`, `unsafe-method`, or `log`.
    pub by: Cow<'static, str>,
    /// Name of the pod that asked.
    pub pod: Cow<'static, str>,
    /// Why, if that was said.
    pub reason: Option<String>,
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

    /// The first event of a log that began anew.
    pub fn reset(pod: &str) -> Self {
        Content {
            matcher: Matcher::All,
            action: Action::Reset,
            by: Cow::Borrowed("log"),
            pod: Cow::Owned(pod.to_owned()),
            reason: Some("the log began anew".to_owned()),
        }
    }

    fn of(request: PurgeRequest, action: Action, pod: &str) -> Self {
        Content {
            matcher: request.matcher,
            action,
            by: Cow::Borrowed(request.by),
            pod: Cow::Owned(pod.to_owned()),
            reason: request.reason.map(|reason| cut(reason, REASON_BYTES_MAX)),
        }
    }
}

/// Bytes of the longest URI, tag or prefix that an event carries, since every pod remembers it.
/// Clients choose how long a URI is: a longer one is cut, and the digests of the whole one travel
/// along.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Bytes to which pods of an older version cut a URI, before they appended `…`.
const OLDER_TEXT_BYTES_MAX: usize = 512;
/// Longest reason in an event, bytes.
const REASON_BYTES_MAX: usize = 1024;
/// What stands at the end of a text that was cut.
const ELLIPSIS: char = '…';

/// Whether a URI may have been cut. A client can send a URI of that length with that end as well:
/// then it is treated alike, which purges more and never less.
pub(crate) fn is_cut(uri: &str) -> bool {
    let bytes_max = [TEXT_BYTES_MAX, OLDER_TEXT_BYTES_MAX + ELLIPSIS.len_utf8()];
    // A cut at the boundary of a character leaves up to three bytes out.
    let is_long = |max: usize| (max - 3..=max).contains(&uri.len());
    uri.ends_with(ELLIPSIS) && bytes_max.into_iter().any(is_long)
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push(ELLIPSIS);
    }
    text
}

/// An event with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its position in the log.
    pub seq: Seq,
    /// When it was appended, milliseconds since the Unix epoch.
    pub at_unix_millis: u64,
    /// What the event does, to which responses.
    pub content: Content,
}

/// An event as a log in Redis hands it out. It names the position of the event before it, by which
/// a reader notices that an event is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position in the log.
    pub seq: Seq,
    /// The position of the event before it; zero if it is the first.
    pub prev: Seq,
    /// What the event does. `None` if it cannot be understood: then it counts as a purge of
    /// everything.
    pub content: Option<Content>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_is_too_long_is_cut_and_one_that_only_looks_so_is_not() {
        for path in ["x".repeat(TEXT_BYTES_MAX), "ä".repeat(TEXT_BYTES_MAX)] {
            let Matcher::Url { uri, digests, rules } =
                Matcher::url(format!("http://h/{path}"), vec![5], 7)
            else {
                panic!()
            };
            assert!(is_cut(&uri) && uri.len() <= TEXT_BYTES_MAX, "{}", uri.len());
            assert_eq!((digests, rules), (vec![5], Some(7)));
        }
        for uri in ["http://h/…".to_owned(), format!("http://h/{}", "x".repeat(2039))] {
            let whole = Matcher::Url { uri: uri.clone(), digests: Vec::new(), rules: None };
            assert_eq!(Matcher::url(uri, Vec::new(), 7), whole);
        }
        // As a pod of an older version cuts it.
        assert!(is_cut(&format!("{}…", "x".repeat(512))));
        assert!(!is_cut(&format!("{}…", "x".repeat(513))));
    }

    #[test]
    fn events_travel_as_json() {
        let request = PurgeRequest {
            matcher: Matcher::Url {
                uri: "http://a/".to_owned(),
                digests: vec![u128::MAX - 5, 7],
                rules: Some(u128::MAX),
            },
            mode: PurgeMode::Soft,
            by: "admin",
            reason: Some("price change".to_owned()),
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
