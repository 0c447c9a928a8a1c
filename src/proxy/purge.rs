//! Purging on behalf of an operator: from what a person writes to an event of the log.

use http::{HeaderMap, Method, Uri};
use outrigger_coherence::{Matcher, Mode, PurgeRequest, Purged};
use outrigger_policy::key::{canonical_uri, digest};
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::{RequestTarget, Snapshot};

use crate::state::Shared;

/// Bytes of a tag or prefix: events go to every pod.
const TEXT_BYTES_MAX: usize = 2048;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeCommand {
    /// Which stored responses: URLs and prefixes as people write them.
    pub matcher: Matcher,
    /// Hard or soft.
    pub mode: Mode,
    /// Why, in the operator's words.
    pub reason: Option<String>,
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

/// Appends a purge to the log and applies it here.
///
/// # Errors
/// When the command cannot be understood.
pub async fn purge(shared: &Shared, command: PurgeCommand) -> Result<Purged, PurgeError> {
    let (matcher, uri_digest) = canonical(shared, command.matcher)?;
    let kind = matcher.kind();
    let PurgeCommand { mode, reason, .. } = command;
    let request = PurgeRequest { matcher, mode, by: "admin", reason, uri_digest };
    let purged = shared.log.purge(request).await;
    shared.metrics.count_purge(kind, mode.as_str());
    Ok(purged)
}

/// Whether a purge can be understood.
///
/// # Errors
/// When it cannot.
pub fn check_purge(shared: &Shared, command: &PurgeCommand) -> Result<(), PurgeError> {
    canonical(shared, command.matcher.clone()).map(|_| ())
}

fn canonical(shared: &Shared, matcher: Matcher) -> Result<(Matcher, u128), PurgeError> {
    if let Matcher::Tag(text) | Matcher::Prefix(text) = &matcher
        && text.len() > TEXT_BYTES_MAX
    {
        return Err(PurgeError::TooLong);
    }
    match matcher {
        Matcher::Url(text) => {
            let uri: Uri = text.parse().map_err(|_| PurgeError::Url(text.clone()))?;
            let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
                return Err(PurgeError::Url(text));
            };
            let active = shared.active();
            let path = if uri.path().is_empty() { "/" } else { uri.path() };
            let name = active.snapshot.authority(authority.as_str());
            let route = active.snapshot.route(RouteQuery {
                host: name,
                path,
                method: &Method::GET,
                headers: &HeaderMap::new(),
                peer: None,
            });
            // The mesh ends TLS before us, so that every key says http.
            let target =
                RequestTarget { scheme: "http", authority: name, path, query: uri.query() };
            let canonical = canonical_uri(target, &route.key);
            let uri_digest = digest(&canonical);
            Ok((Matcher::Url(String::from_utf8_lossy(&canonical).into_owned()), uri_digest))
        }
        Matcher::Prefix(text) => canonical_prefix(&text, &shared.active().snapshot)
            .map(|prefix| (Matcher::Prefix(prefix), 0))
            .ok_or(PurgeError::Prefix(text)),
        Matcher::Tag(tag) if tag.trim().is_empty() => Err(PurgeError::Tag),
        other => Ok((other, 0)),
    }
}

/// `https://Shop.svc:80/a` is stored as `http://shop.svc/a`.
fn canonical_prefix(text: &str, snapshot: &Snapshot) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.is_empty() {
        return None;
    }
    let authority = snapshot.authority(authority);
    let authority = authority.strip_suffix(":80").unwrap_or(authority).to_ascii_lowercase();
    // A bare host must not match hosts that merely begin like it.
    let path = if path.is_empty() { "/" } else { path };
    Some(format!("http://{authority}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Option<String> {
        let policy = "aliases: {shop.svc: [store]}";
        canonical_prefix(text, &Snapshot::from_yaml("p", policy).unwrap())
    }

    #[test]
    fn prefixes_are_made_canonical() {
        assert_eq!(prefix("http://store:8080/a").as_deref(), Some("http://shop.svc/a"));
        assert_eq!(prefix("https://Shop.svc:80/a").as_deref(), Some("http://shop.svc/a"));
        assert_eq!(prefix("http://shop").as_deref(), Some("http://shop/"));
        assert_eq!(prefix("/a"), None);
        assert_eq!(prefix("http:///a"), None);
    }
}
