//! Purging on behalf of an operator: from what a person writes to events of the log.

use std::sync::Arc;

use outrigger_coherence::{
    Canonicaliser, Matcher, PurgeMode, PurgeRequest, Purged, TEXT_BYTES_MAX, Verdict,
};
use outrigger_policy::key::digest;
use outrigger_policy::{Authority, RequestTarget, Snapshot, Url};
use outrigger_store::Entry;

use crate::app::Shared;

/// Keys of the memory tier that are looked at to count what a purge concerns.
const COUNTED_KEYS_MAX: usize = 1 << 20;

/// Which stored responses an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// Those for a URL, in every partition and variant.
    Url(String),
    /// Those that carry a tag.
    Tag(String),
    /// Those whose URL begins so.
    Prefix(String),
    /// All.
    All,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeCommand {
    /// Which stored responses.
    pub target: PurgeTarget,
    /// Hard or soft.
    pub mode: PurgeMode,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What a purge has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeResult {
    /// What became of its event; of the last one if it took several.
    pub purged: Purged,
    /// The stored responses that it met in this pod.
    pub here: Matched,
}

/// Stored responses of this pod's memory that a purge concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// How many there are that no earlier purge had invalidated.
    pub responses: usize,
    /// Whether the memory holds more keys than are looked at, so that there may be more.
    pub partial: bool,
}

/// Why a purge was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// The URL cannot be used.
    #[error("{0:?} is not a URL: write scheme, host and path, for example http://shop.svc/a?b=1")]
    Url(String),
    /// The prefix cannot be used.
    #[error(
        "{0:?} is not a prefix: write scheme, host and the beginning of the path, for example http://shop.svc/a"
    )]
    Prefix(String),
    /// It is longer than events may be.
    #[error("a tag or prefix has at most {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// The tag is empty.
    #[error("the tag is empty")]
    Tag,
}

/// Appends a purge to the log and applies it here. Before that, every key of the memory tier is looked
/// at to count what is concerned, at most 1,048,576, on a thread of its own.
///
/// # Errors
/// When the command cannot be understood.
pub async fn purge(shared: &Arc<Shared>, command: PurgeCommand) -> Result<PurgeResult, PurgeError> {
    let matchers = matchers(&shared.active().snapshot, &command.target)?;
    let here = count_here(shared, matchers.clone()).await;
    let mut purged = Purged::Queued;
    for matcher in matchers {
        shared.metrics.count_purge(matcher.kind(), command.mode.as_str());
        let reason = command.reason.clone();
        let request = PurgeRequest { matcher, mode: command.mode, by: "admin", reason };
        purged = shared.log.purge(request).await;
    }
    Ok(PurgeResult { purged, here })
}

/// Whether a purge can be understood.
///
/// # Errors
/// When it cannot.
pub fn check_purge(shared: &Shared, command: &PurgeCommand) -> Result<(), PurgeError> {
    matchers(&shared.active().snapshot, &command.target).map(|_| ())
}

/// Counts the stored responses that matchers concern, and that are not purged.
pub(crate) async fn count_here(shared: &Arc<Shared>, matchers: Vec<Matcher>) -> Matched {
    let shared = Arc::clone(shared);
    let counting = tokio::task::spawn_blocking(move || {
        let concerned = |entry: &Entry| {
            let tags = Some(&*entry.tags);
            let is_meant =
                |matcher: &Matcher| matcher.concerns(entry.uri(), entry.uri_digest, tags);
            matchers.iter().any(is_meant) && shared.log.verdict(entry) != Verdict::Purged
        };
        let (responses, partial) = shared.memory.count(COUNTED_KEYS_MAX, concerned);
        Matched { responses, partial }
    });
    // It fails only if the process is ending.
    counting.await.unwrap_or_default()
}

fn matchers(snapshot: &Snapshot, target: &PurgeTarget) -> Result<Vec<Matcher>, PurgeError> {
    if let PurgeTarget::Tag(text) | PurgeTarget::Prefix(text) = target
        && text.len() > TEXT_BYTES_MAX
    {
        return Err(PurgeError::TooLong);
    }
    match target {
        PurgeTarget::Url(text) => {
            let url = Url::parse(text).ok().filter(Url::has_scheme);
            Ok(url_matchers(snapshot, &url.ok_or_else(|| PurgeError::Url(text.clone()))?))
        }
        PurgeTarget::Prefix(text) => {
            let prefixes = canonical_prefixes(text, snapshot);
            let prefixes = prefixes.ok_or_else(|| PurgeError::Prefix(text.clone()))?;
            Ok(prefixes.into_iter().map(Matcher::Prefix).collect())
        }
        PurgeTarget::Tag(tag) if tag.trim().is_empty() => Err(PurgeError::Tag),
        PurgeTarget::Tag(tag) => Ok(vec![Matcher::Tag(tag.clone())]),
        PurgeTarget::All => Ok(vec![Matcher::All]),
    }
}

/// What names all that is stored for a URL: one event, or if the URL is too long for an event, the
/// prefixes that it is purged by.
pub(crate) fn url_matchers(snapshot: &Snapshot, url: &Url) -> Vec<Matcher> {
    let uri = url.to_string();
    if uri.len() > TEXT_BYTES_MAX {
        return url.targets().map(|target| path_matcher(snapshot, target)).collect();
    }
    let digests = digests_of(&snapshot.canonical_uris_of(url));
    vec![Matcher::Url { uri, digests }]
}

/// What names all that is stored for the target of a request.
pub(crate) fn target_matcher(snapshot: &Snapshot, target: RequestTarget<'_>) -> Matcher {
    let uri = target.to_string();
    if uri.len() > TEXT_BYTES_MAX {
        return path_matcher(snapshot, target);
    }
    Matcher::Url { uri, digests: digests_of(&snapshot.canonical_uris(target)) }
}

/// The prefix that a target's path is.
fn path_matcher(snapshot: &Snapshot, target: RequestTarget<'_>) -> Matcher {
    let authority = snapshot.service(target.authority);
    let mut prefix = RequestTarget { authority, query: None, ..target }.to_string();
    let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| prefix.is_char_boundary(*at));
    prefix.truncate(cut.unwrap_or(0));
    Matcher::Prefix(prefix)
}

fn digests_of(uris: &[String]) -> Vec<u128> {
    uris.iter().map(|uri| digest(uri.as_bytes())).collect()
}

/// `https://Shop.svc:80/a` is stored as `http://shop.svc/a`; and as `http://shop.svc:443/a` for
/// clients that write the default port of `https` into `Host`.
fn canonical_prefixes(text: &str, snapshot: &Snapshot) -> Option<Vec<String>> {
    let text = text.split('#').next().unwrap_or_default();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })?;
    let rest = &text[scheme.len()..];
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Authority::parse(authority).ok()?;
    let url = Url::parse(&format!("{scheme}{authority}")).ok()?;
    // A bare host must not match hosts that merely begin like it.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut prefixes: Vec<String> = Vec::new();
    for target in url.targets() {
        let prefix = format!("http://{}{path}", snapshot.service(target.authority));
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    Some(prefixes)
}

/// A policy as the purge log asks it.
#[derive(Debug)]
pub(crate) struct CanonicalUris(pub(crate) Arc<Snapshot>);

impl Canonicaliser for CanonicalUris {
    fn digests(&self, uri: &str) -> Vec<u128> {
        Url::parse(uri).map(|url| digests_of(&self.0.canonical_uris_of(&url))).unwrap_or_default()
    }

    fn rules(&self) -> u128 {
        self.0.uri_rules()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot::from_yaml("p", "aliases: {shop.svc: [store]}").unwrap()
    }

    fn prefixes(text: &str) -> Option<Vec<String>> {
        canonical_prefixes(text, &snapshot())
    }

    #[test]
    fn prefixes_are_made_canonical() {
        for (text, prefix) in [
            ("http://store:8080/a", "http://shop.svc/a"),
            ("http://Shop.svc:80/a", "http://shop.svc/a"),
            ("HTTP://shop.svc.:/a#part", "http://shop.svc/a"),
            ("http://shop", "http://shop/"),
            ("http://shop:80", "http://shop/"),
            ("http://[0::1]:80/A?b", "http://[::1]/A?b"),
        ] {
            assert_eq!(prefixes(text), Some(vec![prefix.to_owned()]), "{text}");
        }
        for text in ["https://Other.svc:80/a", "https://other.svc:443/a", "https://other.svc./a"] {
            let both = ["http://other.svc/a".to_owned(), "http://other.svc:443/a".to_owned()];
            assert_eq!(prefixes(text), Some(both.to_vec()), "{text}");
        }
        assert_eq!(prefixes("https://store:443/a"), Some(vec!["http://shop.svc/a".to_owned()]));
        for text in ["/a", "http:///a", "http://user@shop/a", "http://shop:port/", "ftp://shop/"] {
            assert_eq!(prefixes(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_that_is_too_long_for_an_event_is_purged_by_its_path() {
        let long = format!("https://Store/a?{}", "x".repeat(2048));
        let url = Url::parse(&long).unwrap();
        let prefix = Matcher::Prefix("http://shop.svc/a".to_owned());
        assert_eq!(url_matchers(&snapshot(), &url), [prefix.clone(), prefix.clone()]);
        assert_eq!(target_matcher(&snapshot(), url.target()), prefix);
        let path = format!("/{}", "ä".repeat(2048));
        let target = RequestTarget::new(Authority::parse("shop.svc").unwrap(), &path);
        let Matcher::Prefix(prefix) = target_matcher(&snapshot(), target) else { panic!() };
        assert!(prefix.len() <= TEXT_BYTES_MAX && prefix.starts_with("http://shop.svc/ää"));
    }

    #[test]
    fn an_event_carries_the_url_as_it_was_sent() {
        let url = Url::parse("https://Store.:443/a?b#c").unwrap();
        let Some(Matcher::Url { uri, digests }) = url_matchers(&snapshot(), &url).pop() else {
            panic!()
        };
        assert_eq!(uri, "https://store/a?b");
        assert_eq!(digests, [digest(b"http://shop.svc/a?b")]);
        assert_eq!(CanonicalUris(Arc::new(snapshot())).digests(&uri), digests);
    }
}
