//! From URLs, as people and requests write them, to matchers of the purge log under a policy.
//!
//! The log itself knows no policy. It is handed [`CanonicalUris`], so that each pod finds the
//! canonical URIs of an event under its own rules, and again when these change.

use std::sync::Arc;

use http::HeaderMap;
use outrigger_coherence::{Canonicaliser, Matcher};
use outrigger_policy::key::digest;
use outrigger_policy::{Authority, RequestTarget, Snapshot, Url};

/// What names all that is stored for a URL.
pub(crate) fn url_matcher(snapshot: &Snapshot, url: &Url) -> Matcher {
    let digests = digests_of(&snapshot.canonical_uris_of(url));
    Matcher::url(url.to_string(), digests, snapshot.uri_rules())
}

/// What names all that is stored for the target of a request with these header fields.
pub(crate) fn target_matcher(
    snapshot: &Snapshot,
    target: RequestTarget<'_>,
    headers: &HeaderMap,
) -> Matcher {
    let digests = digests_of(&snapshot.canonical_uris(target, headers));
    Matcher::url(target.to_string(), digests, snapshot.uri_rules())
}

fn digests_of(uris: &[String]) -> Vec<u128> {
    uris.iter().map(|uri| digest(uri.as_bytes())).collect()
}

/// What names all that is stored for URLs that begin with a text; `None` if it cannot be read. What
/// this policy makes of it counts in every pod as well, since older pods compare prefixes as they
/// are.
pub(crate) fn prefix_matchers(snapshot: &Snapshot, text: &str) -> Option<Vec<Matcher>> {
    let (url, path) = read_prefix(text)?;
    let mut prefixes: Vec<String> = Vec::new();
    let written = url.targets().map(|target| format!("http://{}{path}", target.authority));
    for prefix in written.chain(canonical_prefixes(snapshot, text)) {
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    Some(prefixes.into_iter().map(Matcher::Prefix).collect())
}

/// `https://Shop.svc:80/a` is stored as `http://shop.svc/a`; and as `http://shop.svc:443/a` for
/// clients that write the default port of `https` into `Host`. Where a route may rewrite the query,
/// its beginning says nothing about what is stored, and the prefix ends before it.
fn canonical_prefixes(snapshot: &Snapshot, text: &str) -> Vec<String> {
    let mut prefixes: Vec<String> = Vec::new();
    let Some((url, whole)) = read_prefix(text) else { return prefixes };
    let path = whole.split('?').next().unwrap_or_default();
    for target in url.targets() {
        let authority = snapshot.service(target.authority);
        let rewritten = snapshot.rewrites_query(RequestTarget { authority, path, query: None });
        let prefix = format!("http://{authority}{}", if rewritten { path } else { &whole });
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// The host of a prefix as a URL, and the rest, which begins with `/`.
fn read_prefix(text: &str) -> Option<(Url, String)> {
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
    Some((url, path))
}

/// A policy as the purge log asks it.
#[derive(Debug)]
pub(crate) struct CanonicalUris(pub(crate) Arc<Snapshot>);

impl Canonicaliser for CanonicalUris {
    fn digests(&self, uri: &str) -> Vec<u128> {
        Url::parse(uri).map(|url| digests_of(&self.0.canonical_uris_of(&url))).unwrap_or_default()
    }

    fn prefixes(&self, text: &str) -> Vec<String> {
        canonical_prefixes(&self.0, text)
    }

    fn rules(&self) -> u128 {
        self.0.uri_rules()
    }
}

#[cfg(test)]
mod tests {
    use outrigger_coherence::TEXT_BYTES_MAX;

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot::from_yaml("p", "aliases: {shop.svc: [store]}").unwrap()
    }

    fn prefixes(text: &str) -> Option<Vec<String>> {
        Some(canonical_prefixes(&snapshot(), text)).filter(|found| !found.is_empty())
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
        for text in ["https://store:443/a", "https://Shop.svc:80/a"] {
            assert_eq!(prefixes(text), Some(vec!["http://shop.svc/a".to_owned()]), "{text}");
        }
        for text in ["/a", "http:///a", "http://user@shop/a", "http://shop:port/", "ftp://shop/"] {
            assert_eq!(prefixes(text), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_travels_as_it_is_written_and_as_this_policy_has_it() {
        let texts = |text: &str| -> Vec<String> {
            let matchers = prefix_matchers(&snapshot(), text).unwrap();
            let text = |matcher: Matcher| match matcher {
                Matcher::Prefix(text) => text,
                other => panic!("{other:?}"),
            };
            matchers.into_iter().map(text).collect()
        };
        assert_eq!(texts("http://Other.:80/a#b"), ["http://other/a"]);
        assert_eq!(texts("http://Store/a"), ["http://store/a", "http://shop.svc/a"]);
        let all = ["http://store/a", "http://store:443/a", "http://shop.svc/a"];
        assert_eq!(texts("https://store/a"), all);
        assert_eq!(prefix_matchers(&snapshot(), "/a"), None);
    }

    #[test]
    fn a_prefix_with_a_query_ends_before_it_where_a_route_rewrites_queries() {
        let policy =
            "routes: [{name: s, match: {path: {exact: /s}}, cache: {key: {query: {sort: true}}}}]";
        let snapshot = Snapshot::from_yaml("p", policy).unwrap();
        for (text, prefix) in [
            ("http://h/s?b=1", "http://h/s"),
            ("http://h/s", "http://h/s"),
            ("http://h/st?b=1", "http://h/st?b=1"),
        ] {
            assert_eq!(canonical_prefixes(&snapshot, text), [prefix], "{text}");
        }
    }

    #[test]
    fn a_url_that_is_too_long_for_an_event_is_cut_and_its_digests_are_exact() {
        let snapshot = snapshot();
        let query = "x".repeat(2048);
        let url = Url::parse(&format!("https://Store/a?{query}")).unwrap();
        let stored = digest(format!("http://shop.svc/a?{query}").as_bytes());
        for matcher in [
            url_matcher(&snapshot, &url),
            target_matcher(&snapshot, url.target(), &HeaderMap::new()),
        ] {
            let Matcher::Url { uri, digests, rules } = matcher else { panic!() };
            assert!(uri.ends_with('…') && uri.len() <= TEXT_BYTES_MAX, "{uri}");
            assert_eq!((digests, rules), (vec![stored], Some(snapshot.uri_rules())));
        }
    }

    #[test]
    fn the_first_digest_is_that_of_a_request_with_the_fields_given() {
        let policy = "
routes:
  - {name: t, match: {headers: {x-tenant: '*'}}, cache: {key: {query: {sort: true}}}}
";
        let snapshot = Snapshot::from_yaml("p", policy).unwrap();
        let url = Url::parse("http://h/a?c&b").unwrap();
        let [plain, sorted] =
            ["http://h/a?c&b", "http://h/a?b&c"].map(|uri| digest(uri.as_bytes()));
        let first = |matcher| match matcher {
            Matcher::Url { digests, .. } => digests,
            other => panic!("{other:?}"),
        };
        assert_eq!(first(url_matcher(&snapshot, &url)), [plain, sorted]);
        let mut headers = HeaderMap::new();
        assert_eq!(first(target_matcher(&snapshot, url.target(), &headers)), [plain, sorted]);
        headers.insert("x-tenant", http::HeaderValue::from_static("t"));
        assert_eq!(first(target_matcher(&snapshot, url.target(), &headers)), [sorted, plain]);
    }

    #[test]
    fn an_event_carries_the_url_as_it_was_sent() {
        let url = Url::parse("https://Store.:443/a?b#c").unwrap();
        let Matcher::Url { uri, digests, rules } = url_matcher(&snapshot(), &url) else { panic!() };
        assert_eq!(rules, None);
        assert_eq!(uri, "https://store/a?b");
        assert_eq!(digests, [digest(b"http://shop.svc/a?b")]);
        assert_eq!(CanonicalUris(Arc::new(snapshot())).digests(&uri), digests);
    }
}
