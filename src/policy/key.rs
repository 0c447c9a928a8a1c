//! The cache key: scheme, authority, path and query, then everything else that tells stored
//! responses apart.
//!
//! There is no default key, and no part of it can be switched off. Besides what policy names, a
//! key holds those request fields that are known to change responses without being announced in
//! `Vary` (`X-Forwarded-Host` and its kin): an input that is not in the key must not be able to
//! poison a stored response.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use smallvec::SmallVec;

use crate::mesh::{Arrival, Peer};
use crate::query::QueryRules;
use crate::uri::{KEY_SCHEME, RequestTarget};

/// What policy adds to a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyRules {
    /// How the query counts.
    pub query: QueryRules,
    /// Request fields that count.
    pub headers: Vec<HeaderName>,
    /// Request fields that count where a request carries them, besides the known ones.
    pub silent: Vec<HeaderName>,
    /// Names of the cookies that count.
    pub cookies: Vec<String>,
    /// Whose responses are kept apart.
    pub partition: Option<Partition>,
    /// The name of a route that header fields or callers choose: they then decide about what is
    /// stored, and so they must be told apart.
    pub route: Option<String>,
}

/// What a route keeps the responses of different callers apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partition {
    /// The value of a field.
    Field(HeaderName),
    /// The authenticated identity of the calling workload.
    Peer,
    /// The namespace of the calling workload.
    Namespace,
}

/// The key of one request: the canonical text and its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey {
    text: SmallVec<[u8; 160]>,
    uri_len: usize,
    digest: u128,
    holds_identity: bool,
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheKey({})", self.display())
    }
}

pub use outrigger_semantics::digest;

impl CacheKey {
    /// Builds the key of a request.
    pub fn build(
        target: RequestTarget<'_>,
        headers: &HeaderMap,
        rules: &KeyRules,
        arrival: Arrival<'_>,
    ) -> Self {
        let mut text = uri_text(target, &rules.query);
        let uri_len = text.len();
        if let Some((side, port)) = arrival.entry {
            text.push(b'\n');
            text.extend_from_slice(side.as_str().as_bytes());
            text.push(b' ');
            text.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        if let Some(own) = arrival.own {
            append_identity(&mut text, b"\nas ", &[own]);
        }
        for name in headers.keys() {
            if changes_responses_silently(name) && !rules.headers.contains(name) {
                append_field(&mut text, name, headers);
            }
        }
        let mut holds_identity = false;
        for name in &rules.silent {
            let is_new = !changes_responses_silently(name) && !rules.headers.contains(name);
            if is_new && headers.contains_key(name) {
                append_field(&mut text, name, headers);
                holds_identity |= *name == AUTHORIZATION;
            }
        }
        if let Some(route) = &rules.route {
            text.extend_from_slice(b"\nroute ");
            text.extend_from_slice(route.as_bytes());
        }
        for name in &rules.headers {
            append_field(&mut text, name, headers);
            holds_identity |= *name == AUTHORIZATION && headers.contains_key(name);
        }
        for name in &rules.cookies {
            text.extend_from_slice(b"\ncookie ");
            text.extend_from_slice(name.as_bytes());
            for value in cookie_values(headers, name) {
                text.extend_from_slice(b"\n=");
                text.extend_from_slice(value);
            }
        }
        match &rules.partition {
            None => {}
            Some(Partition::Field(name)) => {
                text.extend_from_slice(b"\npartition ");
                append_field(&mut text, name, headers);
                holds_identity |= headers.contains_key(name);
            }
            // The calling workload is not the user for whom it calls: credentials in the request
            // are told apart by neither of these.
            Some(Partition::Peer) => {
                let principal = arrival.peer.map_or("", Peer::principal);
                append_identity(&mut text, b"\npeer ", &[principal]);
            }
            Some(Partition::Namespace) => {
                let domain = arrival.peer.map_or("", Peer::trust_domain);
                let namespace = arrival.peer.and_then(Peer::namespace).unwrap_or_default();
                append_identity(&mut text, b"\nnamespace ", &[domain, "/ns/", namespace]);
            }
        }
        let digest = digest(&text);
        CacheKey { text, uri_len, digest, holds_identity }
    }

    /// The digest of the whole key.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The whole canonical text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The canonical URI within the text: what a purge by URL names.
    pub fn uri(&self) -> &[u8] {
        &self.text[..self.uri_len]
    }

    /// Whether the key separates this request's identity from others.
    pub fn holds_identity(&self) -> bool {
        self.holds_identity
    }

    /// A printable form for logs and `explain`.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.text).replace('\n', " ")
    }
}

/// The canonical URI of a target under a route's query rules, as stored responses carry it. The
/// authority must be the service's already, if it has aliases.
pub(crate) fn uri_text(target: RequestTarget<'_>, rules: &QueryRules) -> SmallVec<[u8; 160]> {
    let mut text = SmallVec::new();
    text.extend_from_slice(KEY_SCHEME.as_bytes());
    target.authority.write_to(&mut text);
    text.extend_from_slice(target.path.as_bytes());
    if let Some(query) = target.query {
        if rules.is_identity() {
            text.push(b'?');
            text.extend_from_slice(query.as_bytes());
        } else {
            let query = rules.apply(query);
            if !query.is_empty() {
                text.push(b'?');
                text.extend_from_slice(query.as_bytes());
            }
        }
    }
    text
}

/// Fields by which proxies and frameworks change what a URL means.
#[inline]
fn changes_responses_silently(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name.as_bytes(), [b'x', b'-' | b'_', ..] | [b'f', ..]) && is_silent_spelling(name)
}

/// Frameworks that hand fields on as variables (CGI, RFC 3875 §4.1.18) read `_` as `-`.
fn is_silent_spelling(name: &str) -> bool {
    if name.contains('_') { is_silent(&name.replace('_', "-")) } else { is_silent(name) }
}

fn is_silent(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-") else {
        return matches!(name, "forwarded" | "front-end-https");
    };
    matches!(
        rest,
        "forwarded-host"
            | "forwarded-host-override"
            | "forwarded-path"
            | "forwarded-port"
            | "forwarded-prefix"
            | "forwarded-proto"
            | "forwarded-protocol"
            | "forwarded-scheme"
            | "forwarded-server"
            | "forwarded-ssl"
            | "forwarded-uri"
            | "original-host"
            | "original-method"
            | "original-uri"
            | "original-url"
            | "rewrite-url"
            | "host"
            | "host-override"
            | "http-host-override"
            | "backend-host"
            | "proxy-host"
            | "real-host"
            | "script-name"
            | "scheme"
            | "url-scheme"
            | "http-method"
            | "http-method-override"
            | "method-override"
            | "envoy-original-host"
            | "envoy-original-path"
    ) || rest.starts_with("middleware-")
        || rest.starts_with("invoke-")
}

fn append_field(text: &mut SmallVec<[u8; 160]>, name: &HeaderName, headers: &HeaderMap) {
    text.push(b'\n');
    text.extend_from_slice(name.as_str().as_bytes());
    // A value cannot hold a line feed, so that none can imitate a further value or field.
    for value in headers.get_all(name) {
        text.extend_from_slice(b"\n=");
        text.extend_from_slice(value.as_bytes().trim_ascii());
    }
}

/// An identity holds no line feed, so that none can imitate a further part.
fn append_identity(text: &mut SmallVec<[u8; 160]>, name: &[u8], parts: &[&str]) {
    text.extend_from_slice(name);
    parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
}

fn cookie_values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .map(<[u8]>::trim_ascii)
        .filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Side;
    use crate::uri::Authority;
    use http::HeaderValue;

    fn target(path: &'static str) -> RequestTarget<'static> {
        RequestTarget::new(Authority::parse("Shop.svc:80").unwrap(), path)
    }

    fn build(path: &'static str, headers: &HeaderMap, rules: &KeyRules) -> CacheKey {
        CacheKey::build(target(path), headers, rules, Arrival::default())
    }

    #[test]
    fn ports_and_callers_are_told_apart() {
        let of = |entry, uri: &'static str, partition| {
            let rules = KeyRules { partition: Some(partition), ..KeyRules::default() };
            let arrival = Arrival { entry, peer: Peer::parse(uri), own: None };
            CacheKey::build(target("/"), &HeaderMap::new(), &rules, arrival)
        };
        let (a, b) = ("spiffe://td/ns/shop/sa/a", "spiffe://td/ns/shop/sa/b");
        let inbound = |port| Some((Side::Inbound, port));
        let one = of(inbound(80), a, Partition::Peer);
        assert_eq!(one.text(), b"http://shop.svc/\ninbound 80\npeer td/ns/shop/sa/a");
        assert_ne!(one.digest(), of(inbound(80), b, Partition::Peer).digest());
        assert_ne!(one.digest(), of(inbound(81), a, Partition::Peer).digest());
        assert_ne!(one.digest(), of(Some((Side::Outbound, 80)), a, Partition::Peer).digest());
        assert_eq!(one.uri(), b"http://shop.svc/");
        assert!(!one.holds_identity(), "a workload calls for many users");
        let namespace = |uri| of(inbound(80), uri, Partition::Namespace).digest();
        assert_eq!(namespace(a), namespace(b));
        assert_ne!(namespace(a), namespace("spiffe://td/ns/other/sa/a"));
        assert_ne!(namespace(a), namespace("spiffe://other/ns/shop/sa/a"));
        let own = |own| {
            let arrival = Arrival { own, ..Arrival::default() };
            CacheKey::build(target("/"), &HeaderMap::new(), &KeyRules::default(), arrival).digest()
        };
        assert_ne!(own(Some("td/ns/shop/sa/a")), own(Some("td/ns/shop/sa/b")));
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn a_plain_key_is_the_canonical_uri() {
        let key = build("/a?b=1", &HeaderMap::new(), &KeyRules::default());
        assert_eq!(key.text(), b"http://shop.svc/a?b=1");
        assert_eq!(key.uri(), key.text());
        assert!(!key.holds_identity());
    }

    #[test]
    fn a_host_smuggled_in_another_field_is_part_of_the_key() {
        let plain = build("/", &HeaderMap::new(), &KeyRules::default());
        let other = map(&[("x-forwarded-host", "evil.example")]);
        let other = build("/", &other, &KeyRules::default());
        assert_ne!(plain.digest(), other.digest());
        assert_eq!(plain.uri(), other.uri());
    }

    #[test]
    fn a_field_that_policy_calls_silent_counts_where_it_is_there() {
        let name = |text| HeaderName::from_static(text);
        let silent = vec![name("x-brand"), name("x-forwarded-host"), name("x-tenant")];
        let rules = KeyRules { silent, headers: vec![name("x-tenant")], ..KeyRules::default() };
        let text =
            |pairs: &[(&'static str, &'static str)]| build("/", &map(pairs), &rules).display();
        assert_eq!(text(&[]), "http://shop.svc/ x-tenant");
        assert_eq!(text(&[("x-brand", "a")]), "http://shop.svc/ x-brand =a x-tenant");
        assert_eq!(
            text(&[("x-forwarded-host", "h"), ("x-tenant", "t")]),
            "http://shop.svc/ x-forwarded-host =h x-tenant =t"
        );
    }

    #[test]
    fn two_values_are_not_one() {
        let rules =
            KeyRules { headers: vec![HeaderName::from_static("x-tenant")], ..KeyRules::default() };
        let mut two = map(&[("x-tenant", "org")]);
        two.append("x-tenant", HeaderValue::from_static("5"));
        let one = map(&[("x-tenant", "org=5")]);
        let of = |headers: &HeaderMap| build("/", headers, &rules).digest();
        assert_ne!(of(&one), of(&two));
    }

    #[test]
    fn partitions_and_cookies_separate() {
        let rules = KeyRules {
            cookies: vec!["tier".to_owned()],
            partition: Some(Partition::Field(HeaderName::from_static("x-user"))),
            ..KeyRules::default()
        };
        let of = |pairs: &[(&'static str, &'static str)]| build("/", &map(pairs), &rules);
        assert!(of(&[("x-user", "a")]).holds_identity());
        assert!(!of(&[]).holds_identity());
        assert_ne!(of(&[("x-user", "a")]).digest(), of(&[("x-user", "b")]).digest());
        assert_ne!(of(&[("cookie", "a=1; tier=x")]).digest(), of(&[("cookie", "tier=y")]).digest());
        assert_eq!(of(&[("cookie", "a=1; tier=x")]).digest(), of(&[("cookie", "tier=x")]).digest());
    }
}
