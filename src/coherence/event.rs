//! What a purge says.

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
pub enum Mode {
    /// They are never served again.
    #[default]
    Hard,
    /// They are stale: served only within their stale windows, and validated with the upstream.
    Soft,
}

impl Mode {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// A purge before it has a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRequest {
    /// Which responses.
    pub matcher: Matcher,
    /// What becomes of them.
    pub mode: Mode,
    /// Who asked: `admin`, or the method of an unsafe request.
    pub by: &'static str,
    /// Digest of the URI, for [`Matcher::Url`].
    pub uri_digest: u128,
}

/// A purge in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its position.
    pub seq: Seq,
    /// Which responses.
    pub matcher: Matcher,
    /// What becomes of them.
    pub mode: Mode,
    /// Who asked.
    pub by: &'static str,
}
