//! From URLs, as people and requests write them, to matchers of the purge log under a policy.
//!
//! The log itself knows no policy. It is handed [`CanonicalUris`], so that each pod finds the
//! canonical URIs of an event under its own rules, and again when these change.

use std::sync::Arc;

use outrigger_coherence::{Canonicaliser, Matcher, TEXT_BYTES_MAX};
use outrigger_policy::key::digest;
use outrigger_policy::{Authority, RequestTarget, Snapshot, Url};

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
pub(crate) fn canonical_prefixes(text: &str, snapshot: &Snapshot) -> Option<Vec<String>> {
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
