//! Finding the route of a request at a cost that does not grow with the number of routes: by host,
//! then by path segments.
//!
//! The most specific match wins. Hosts decide first: an exact one, then the longest wildcard, then
//! any host. Paths decide next, segment by segment: a literal before a placeholder before the end of
//! a prefix. Between equal ones, more conditions on methods, headers and callers win, then the order
//! of the document.

use std::collections::HashMap;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use crate::aliases::Aliases;
use crate::document::{MatchDocument, PathDocument};
use crate::mesh::{IdentityPattern, Peer};
use crate::values::HostPattern;

/// The parts of a request by which a route is chosen.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// Host, with or without port.
    pub host: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// The method of the request.
    pub method: &'a Method,
    /// The header fields of the request.
    pub headers: &'a HeaderMap,
    /// The caller that the mesh has authenticated; `None` without one.
    pub peer: Option<Peer<'a>>,
}

/// What a header field must look like.
#[derive(Clone, Debug)]
enum FieldMatch {
    Present,
    Exact(String),
    Prefix(String),
}

/// One route with the conditions left to check at a leaf.
#[derive(Clone, Debug)]
struct Candidate {
    route: usize,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, FieldMatch)>,
    principals: Vec<IdentityPattern>,
    namespaces: Vec<IdentityPattern>,
}

impl Candidate {
    fn holds(&self, query: &RouteQuery<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(query.method))
            && self.headers.iter().all(|(name, wanted)| {
                query.headers.get_all(name).iter().any(|value| wanted.holds(value))
            })
            && holds_any(&self.principals, query.peer.map(Peer::principal))
            && holds_any(&self.namespaces, query.peer.and_then(Peer::namespace))
    }

    fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty())
            + self.headers.len()
            + usize::from(!self.principals.is_empty())
            + usize::from(!self.namespaces.is_empty())
    }
}

/// Whether an identity is one of those wanted; a caller without one is not.
fn holds_any(wanted: &[IdentityPattern], identity: Option<&str>) -> bool {
    wanted.is_empty()
        || identity.is_some_and(|identity| wanted.iter().any(|pattern| pattern.holds(identity)))
}

impl FieldMatch {
    fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some("") => Self::Present,
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    fn holds(&self, value: &HeaderValue) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => value.as_bytes() == text.as_bytes(),
            Self::Prefix(text) => value.as_bytes().starts_with(text.as_bytes()),
        }
    }
}

/// A node of the path tree: one segment deeper than its parent.
#[derive(Debug, Default)]
struct PathNode {
    literal: HashMap<Box<str>, PathNode>,
    placeholder: Option<Box<PathNode>>,
    exact: Vec<Candidate>,
    below: Vec<Candidate>,
}

impl PathNode {
    fn find(&self, segments: &[&str], query: &RouteQuery<'_>) -> Option<usize> {
        match segments.split_first() {
            None => {
                if let Some(found) = first(&self.exact, query) {
                    return Some(found);
                }
            }
            Some((segment, rest)) => {
                let literal = self.literal.get(*segment).and_then(|node| node.find(rest, query));
                if literal.is_some() {
                    return literal;
                }
                if !segment.is_empty()
                    && let Some(found) =
                        self.placeholder.as_ref().and_then(|node| node.find(rest, query))
                {
                    return Some(found);
                }
            }
        }
        first(&self.below, query)
    }

    fn child(&mut self, segment: &str) -> &mut PathNode {
        if segment.starts_with('{') {
            self.placeholder.get_or_insert_default()
        } else {
            self.literal.entry(segment.into()).or_default()
        }
    }
}

fn first(candidates: &[Candidate], query: &RouteQuery<'_>) -> Option<usize> {
    candidates.iter().find(|candidate| candidate.holds(query)).map(|candidate| candidate.route)
}

fn add(list: &mut Vec<Candidate>, candidate: Candidate) {
    list.push(candidate);
    list.sort_by_key(|candidate| (std::cmp::Reverse(candidate.conditions()), candidate.route));
}

/// All routes of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    exact: HashMap<String, PathNode>,
    below: HashMap<String, PathNode>,
    any: PathNode,
}

/// Deeper paths are matched by their first segments only, which bounds the work per request.
const SEGMENTS_MAX: usize = 64;

impl RouteIndex {
    pub(crate) fn insert(&mut self, route: usize, conditions: &MatchDocument, aliases: &Aliases) {
        let candidate = Candidate {
            route,
            methods: conditions.methods.iter().map(|method| method.0.clone()).collect(),
            headers: conditions
                .headers
                .iter()
                .map(|(name, text)| (name.header_name(), FieldMatch::parse(text)))
                .collect(),
            principals: conditions.principals.clone(),
            namespaces: conditions.namespaces.clone(),
        };
        let any = [HostPattern::Any];
        let hosts = if conditions.hosts.is_empty() { &any[..] } else { &conditions.hosts };
        for host in hosts {
            let tree = match host {
                // Requests are matched under the one name of their service.
                HostPattern::Exact(name) => {
                    self.exact.entry(aliases.resolve(name).to_owned()).or_default()
                }
                HostPattern::Below(name) => self.below.entry(name.clone()).or_default(),
                HostPattern::Any => &mut self.any,
            };
            insert_path(tree, conditions.path.as_ref(), candidate.clone());
        }
    }

    pub(crate) fn find(&self, query: RouteQuery<'_>) -> Option<usize> {
        let path = query.path.strip_prefix('/').unwrap_or(query.path);
        let mut segments: smallvec::SmallVec<[&str; 16]> = path.splitn(SEGMENTS_MAX, '/').collect();
        if path.is_empty() {
            segments.clear();
        }
        if !self.exact.is_empty() || !self.below.is_empty() {
            let host = lower_host(query.host);
            if let Some(found) = self.exact.get(&*host).and_then(|t| t.find(&segments, &query)) {
                return Some(found);
            }
            if !self.below.is_empty() {
                let mut rest = &*host;
                while let Some((_, domain)) = rest.split_once('.') {
                    if let Some(found) =
                        self.below.get(domain).and_then(|t| t.find(&segments, &query))
                    {
                        return Some(found);
                    }
                    rest = domain;
                }
            }
        }
        self.any.find(&segments, &query)
    }
}

fn insert_path(tree: &mut PathNode, path: Option<&PathDocument>, candidate: Candidate) {
    let Some(path) = path else { return add(&mut tree.below, candidate) };
    if let Some(text) = &path.exact {
        // An exact path has no placeholders: a brace in it is a literal character.
        let node = descend(tree, text, false);
        add(&mut node.exact, candidate);
    } else if let Some(text) = &path.prefix {
        let text = text.strip_suffix('/').unwrap_or(text);
        add(&mut descend(tree, text, false).below, candidate);
    } else if let Some(text) = &path.template {
        match text.rsplit_once('/') {
            Some((parent, last)) if last.ends_with("=**}") => {
                add(&mut descend(tree, parent, true).below, candidate);
            }
            _ => add(&mut descend(tree, text, true).exact, candidate),
        }
    }
}

fn descend<'a>(tree: &'a mut PathNode, path: &str, placeholders: bool) -> &'a mut PathNode {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut node = tree;
    if path.is_empty() {
        return node;
    }
    for segment in path.split('/') {
        node = if placeholders {
            node.child(segment)
        } else {
            node.literal.entry(segment.into()).or_default()
        };
    }
    node
}

fn lower_host(host: &str) -> std::borrow::Cow<'_, str> {
    let bare = match host.rfind(':') {
        Some(at) if !host.ends_with(']') => &host[..at],
        _ => host,
    };
    if bare.bytes().any(|b| b.is_ascii_uppercase()) {
        bare.to_ascii_lowercase().into()
    } else {
        bare.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::values::MethodName;

    fn index(texts: &[&str]) -> RouteIndex {
        let mut index = RouteIndex::default();
        for (route, text) in texts.iter().enumerate() {
            index.insert(route, &serde_yaml::from_str(text).unwrap(), &Aliases::default());
        }
        index
    }

    fn find(index: &RouteIndex, host: &str, path: &str) -> Option<usize> {
        let headers = &HeaderMap::new();
        index.find(RouteQuery { host, path, method: &Method::GET, headers, peer: None })
    }

    #[test]
    fn the_most_specific_host_wins() {
        let index = index(&["{}", "hosts: ['*.svc']", "hosts: ['*.a.svc']", "hosts: [x.a.svc]"]);
        assert_eq!(find(&index, "X.a.svc:8080", "/"), Some(3));
        assert_eq!(find(&index, "y.a.svc", "/"), Some(2));
        assert_eq!(find(&index, "b.svc", "/"), Some(1));
        assert_eq!(find(&index, "svc", "/"), Some(0));
    }

    #[test]
    fn the_most_specific_path_wins() {
        let index = index(&[
            "path: {prefix: /a}",
            "path: {prefix: /a/b/}",
            "path: {exact: /a/b/c}",
            "path: {template: '/a/{id}/c'}",
            "path: {template: '/t/{rest=**}'}",
        ]);
        for (path, route) in [
            ("/a", Some(0)),
            ("/ab", None),
            ("/a/x", Some(0)),
            ("/a/b", Some(1)),
            ("/a/b/c", Some(2)),
            ("/a/b/c/", Some(1)),
            ("/a/x/c", Some(3)),
            ("/a//c", Some(0)),
            ("/t/1/2/3", Some(4)),
            ("/", None),
        ] {
            assert_eq!(find(&index, "h", path), route, "{path}");
        }
    }

    #[test]
    fn methods_and_headers_fall_back_to_the_next_route() {
        let index = index(&[
            "path: {prefix: /}",
            "{path: {prefix: /a}, methods: [POST]}",
            "{path: {prefix: /a}, headers: {x-tenant: 'acme*'}}",
        ]);
        assert_eq!(find(&index, "h", "/a"), Some(0));
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("acme-1"));
        let (method, headers) = (&Method::GET, &headers);
        let query = RouteQuery { host: "h", path: "/a", method, headers, peer: None };
        assert_eq!(index.find(query), Some(2));
    }

    #[test]
    fn a_route_can_be_for_some_callers() {
        let index = index(&[
            "{}",
            "principals: ['*/sa/frontend']",
            "{principals: ['*/sa/frontend'], namespaces: [shop]}",
        ]);
        let (method, headers) = (&Method::GET, &HeaderMap::new());
        let of = |uri| {
            let peer = Peer::parse(uri);
            index.find(RouteQuery { host: "h", path: "/", method, headers, peer })
        };
        assert_eq!(of("spiffe://td/ns/shop/sa/frontend"), Some(2));
        assert_eq!(of("spiffe://td/ns/other/sa/frontend"), Some(1));
        assert_eq!(of("spiffe://td/ns/shop/sa/batch"), Some(0));
        assert_eq!(of(""), Some(0));
    }

    /// How specific a match is; greater wins. One number for each segment and one for the end.
    type Rank = Vec<u8>;
    const END_OF_PREFIX: u8 = 0;
    const PLACEHOLDER: u8 = 1;
    const LITERAL: u8 = 2;
    const END_OF_PATH: u8 = 3;

    fn segments(path: &str) -> Vec<&str> {
        match path.strip_prefix('/').unwrap_or(path) {
            "" => Vec::new(),
            path => path.split('/').collect(),
        }
    }

    fn path_rank(pattern: Option<&PathDocument>, path: &str) -> Option<Rank> {
        let Some(pattern) = pattern else { return Some(vec![END_OF_PREFIX]) };
        let (text, placeholders, whole) = match pattern {
            PathDocument { exact: Some(text), .. } => (text.as_str(), false, true),
            PathDocument { prefix: Some(text), .. } => (text.trim_end_matches('/'), false, false),
            PathDocument { template: Some(text), .. } => match text.rsplit_once('/') {
                Some((parent, "{rest=**}")) => (parent, true, false),
                _ => (text.as_str(), true, true),
            },
            PathDocument { .. } => return None,
        };
        let (wanted, given) = (segments(text), segments(path));
        if wanted.len() > given.len() || (whole && wanted.len() < given.len()) {
            return None;
        }
        let ranks = wanted.iter().zip(&given).map(|(wanted, given)| {
            if placeholders && wanted.starts_with('{') {
                (!given.is_empty()).then_some(PLACEHOLDER)
            } else {
                (wanted == given).then_some(LITERAL)
            }
        });
        let mut rank: Rank = ranks.collect::<Option<_>>()?;
        rank.push(if whole { END_OF_PATH } else { END_OF_PREFIX });
        Some(rank)
    }

    fn host_rank(wanted: &[HostPattern], host: &str) -> Option<(u8, usize)> {
        let rank = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) => (name == host).then_some((2, 0)),
            HostPattern::Below(domain) => {
                let below = host.strip_suffix(domain.as_str())?;
                below.ends_with('.').then_some((1, domain.len()))
            }
            HostPattern::Any => Some((0, 0)),
        };
        if wanted.is_empty() { Some((0, 0)) } else { wanted.iter().filter_map(rank).max() }
    }

    /// What the index has to find, by looking at every route.
    fn scan(routes: &[MatchDocument], host: &str, path: &str) -> Option<usize> {
        let ranked = routes.iter().enumerate().filter_map(|(id, route)| {
            let get = route.methods.is_empty() || route.methods[0].0 == Method::GET;
            let conditions = route.methods.len();
            let rank = (host_rank(&route.hosts, host)?, path_rank(route.path.as_ref(), path)?);
            get.then_some((rank, conditions, std::cmp::Reverse(id)))
        });
        ranked.max().map(|(_, _, std::cmp::Reverse(id))| id)
    }

    fn any_path() -> impl Strategy<Value = Option<PathDocument>> {
        let segments = proptest::collection::vec(prop_oneof!["[ab]", Just("{x}".to_owned())], 0..4);
        (0..5, segments).prop_map(|(kind, segments)| {
            let text = format!("/{}", segments.join("/"));
            let rest = format!("{}/{{rest=**}}", text.trim_end_matches('/'));
            let none = PathDocument::default();
            match kind {
                0 => None,
                1 => Some(PathDocument { exact: Some(text), ..none }),
                2 => Some(PathDocument { prefix: Some(text), ..none }),
                3 => Some(PathDocument { template: Some(text), ..none }),
                _ => Some(PathDocument { template: Some(rest), ..none }),
            }
        })
    }

    fn any_route() -> impl Strategy<Value = MatchDocument> {
        let hosts =
            ["*", "*.svc", "*.a.svc", "x.a.svc"].map(|host| HostPattern::parse(host).unwrap());
        let hosts = proptest::sample::subsequence(hosts.to_vec(), 0..=2);
        let methods = ["GET", "POST"].map(|method| MethodName::parse(method).unwrap());
        let methods = proptest::sample::subsequence(methods.to_vec(), 0..=1);
        (hosts, any_path(), methods).prop_map(|(hosts, path, methods)| MatchDocument {
            hosts,
            path,
            methods,
            ..MatchDocument::default()
        })
    }

    proptest! {
        // Two routes that compete for one request are rare among random ones.
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_index_finds_what_a_look_at_every_route_finds(
            routes in proptest::collection::vec(any_route(), 0..12),
            host in prop_oneof!["x[.]a[.]svc", "y[.]a[.]svc", "b[.]svc", "svc"],
            path in prop_oneof!["(/([ab]|[{]x[}])?){0,5}", "[/a-c{}]{0,40}"],
        ) {
            let mut index = RouteIndex::default();
            for (id, route) in routes.iter().enumerate() {
                index.insert(id, route, &Aliases::default());
            }
            prop_assert_eq!(find(&index, &host, &path), scan(&routes, &host, &path));
        }
    }
}
