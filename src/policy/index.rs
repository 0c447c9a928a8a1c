//! Finding the route of a request at a cost that does not grow with the number of routes: by host,
//! then by path segments.
//!
//! The most specific match wins. Hosts decide first: an exact one, then the longest wildcard, then
//! any host. Paths decide next, segment by segment: a literal before a placeholder before the end of
//! a prefix. Between equal ones, more conditions on methods, headers and callers win, then the order
//! of the document.

use std::collections::HashMap;
use std::ops::ControlFlow;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use crate::aliases::Aliases;
use crate::document::{MatchDocument, PathDocument};
use crate::mesh::{IdentityPattern, Peer};
use crate::uri::Authority;
use crate::values::HostPattern;

/// The parts of a request by which a route is chosen.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// Host and port; routes are chosen by the host alone.
    pub authority: Authority<'a>,
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

    /// Whether a GET of this URL may find the route. HEAD counts as well, since it updates what is
    /// stored.
    fn may_store(&self) -> bool {
        let wanted = |method: &Method| *method == Method::GET || *method == Method::HEAD;
        self.methods.is_empty() || self.methods.iter().any(wanted)
    }

    /// Whether every GET of this URL that comes to the route finds it.
    fn is_certain(&self) -> bool {
        (self.methods.is_empty() || self.methods.contains(&Method::GET))
            && self.headers.is_empty()
            && self.principals.is_empty()
            && self.namespaces.is_empty()
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
    /// Shows each candidate whose path matches, the most specific first.
    fn visit<B>(
        &self,
        segments: &[&str],
        each: &mut impl FnMut(&Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match segments.split_first() {
            None => self.exact.iter().try_for_each(&mut *each)?,
            Some((segment, rest)) => {
                if let Some(node) = self.literal.get(*segment) {
                    node.visit(rest, each)?;
                }
                if !segment.is_empty()
                    && let Some(node) = &self.placeholder
                {
                    node.visit(rest, each)?;
                }
            }
        }
        self.below.iter().try_for_each(each)
    }

    fn child(&mut self, segment: &str) -> &mut PathNode {
        if segment.starts_with('{') {
            self.placeholder.get_or_insert_default()
        } else {
            self.literal.entry(segment.into()).or_default()
        }
    }
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
                    let service = aliases.resolve(Authority::of_valid(name)).host();
                    self.exact.entry(service.into_owned()).or_default()
                }
                HostPattern::Below(name) => self.below.entry(name.clone()).or_default(),
                HostPattern::Any => &mut self.any,
            };
            insert_path(tree, conditions.path.as_ref(), candidate.clone());
        }
    }

    /// The route of a request.
    pub(crate) fn find(&self, query: RouteQuery<'_>) -> Option<usize> {
        let mut found = |candidate: &Candidate| match candidate.holds(&query) {
            true => ControlFlow::Break(candidate.route),
            false => ControlFlow::Continue(()),
        };
        match self.visit(query.authority, query.path, &mut found) {
            ControlFlow::Break(route) => Some(route),
            ControlFlow::Continue(()) => None,
        }
    }

    /// Every route that a GET of this URL may find, the most specific first, and whether there may
    /// be one that finds none of them.
    pub(crate) fn possible(&self, authority: Authority<'_>, path: &str) -> (Vec<usize>, bool) {
        let mut routes = Vec::new();
        let end = self.visit(authority, path, &mut |candidate| {
            if candidate.may_store() && !routes.contains(&candidate.route) {
                routes.push(candidate.route);
            }
            if candidate.is_certain() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (routes, end.is_continue())
    }

    /// Shows each candidate whose host and path match, the most specific first.
    fn visit<B>(
        &self,
        authority: Authority<'_>,
        path: &str,
        each: &mut impl FnMut(&Candidate) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut segments: smallvec::SmallVec<[&str; 16]> = path.splitn(SEGMENTS_MAX, '/').collect();
        if path.is_empty() {
            segments.clear();
        }
        if !self.exact.is_empty() || !self.below.is_empty() {
            let host = authority.host();
            if let Some(tree) = self.exact.get(&*host) {
                tree.visit(&segments, each)?;
            }
            if !self.below.is_empty() {
                let mut rest = &*host;
                while let Some((_, domain)) = rest.split_once('.') {
                    if let Some(tree) = self.below.get(domain) {
                        tree.visit(&segments, each)?;
                    }
                    rest = domain;
                }
            }
        }
        self.any.visit(&segments, each)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> RouteIndex {
        let mut index = RouteIndex::default();
        for (route, text) in texts.iter().enumerate() {
            index.insert(route, &serde_yaml::from_str(text).unwrap(), &Aliases::default());
        }
        index
    }

    fn find(index: &RouteIndex, host: &str, path: &str) -> Option<usize> {
        let headers = &HeaderMap::new();
        let authority = Authority::parse(host).unwrap();
        index.find(RouteQuery { authority, path, method: &Method::GET, headers, peer: None })
    }

    #[test]
    fn the_most_specific_host_wins() {
        let index = index(&["{}", "hosts: ['*.svc']", "hosts: ['*.a.svc']", "hosts: [x.a.svc]"]);
        assert_eq!(find(&index, "X.a.svc:8080", "/"), Some(3));
        assert_eq!(find(&index, "y.a.svc", "/"), Some(2));
        assert_eq!(find(&index, "b.svc", "/"), Some(1));
        assert_eq!(find(&index, "svc", "/"), Some(0));
        assert_eq!(find(&index, "x.a.svc.", "/"), Some(3));
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
        let authority = Authority::of_valid("h");
        let query = RouteQuery { authority, path: "/a", method, headers, peer: None };
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
            let authority = Authority::of_valid("h");
            index.find(RouteQuery { authority, path: "/", method, headers, peer })
        };
        assert_eq!(of("spiffe://td/ns/shop/sa/frontend"), Some(2));
        assert_eq!(of("spiffe://td/ns/other/sa/frontend"), Some(1));
        assert_eq!(of("spiffe://td/ns/shop/sa/batch"), Some(0));
        assert_eq!(of(""), Some(0));
    }

    /// Where a path of the policy stands among those that match, the smallest first: segment by
    /// segment a literal comes before a placeholder, and that before the end of a prefix. `None` if
    /// it does not match.
    fn path_rank(kind: &str, pattern: &str, path: &str) -> Option<Vec<u8>> {
        let split = |text: &str| -> Vec<String> {
            let text = text.strip_prefix('/').unwrap_or(text);
            if text.is_empty() { Vec::new() } else { text.split('/').map(str::to_owned).collect() }
        };
        let mut wanted = split(pattern);
        if kind == "prefix" && wanted.last().is_some_and(String::is_empty) {
            wanted.pop();
        }
        let is_rest =
            kind == "template" && wanted.last().is_some_and(|last| last.ends_with("=**}"));
        if is_rest {
            wanted.pop();
        }
        let (open, given) = (is_rest || kind == "prefix", split(path));
        if given.len() < wanted.len() || (!open && given.len() > wanted.len()) {
            return None;
        }
        let mut rank = Vec::new();
        for (wanted, given) in wanted.iter().zip(&given) {
            let placeholder = kind == "template" && wanted.starts_with('{');
            let matches = if placeholder { !given.is_empty() } else { wanted == given };
            rank.push(u8::from(placeholder));
            matches.then_some(())?;
        }
        rank.push(if open { 2 } else { 0 });
        Some(rank)
    }

    /// The same for a host.
    fn host_rank(pattern: &str, host: &str) -> Option<(u8, usize)> {
        match pattern.strip_prefix("*.") {
            Some(domain) => {
                let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
                below.then_some((1, usize::MAX - domain.len()))
            }
            None if pattern == "*" => Some((2, 0)),
            None => (pattern == host).then_some((0, 0)),
        }
    }

    const HOSTS: [&str; 4] = ["x.a.svc", "*.a.svc", "*.svc", "*"];
    const PATHS: [(&str, &str); 10] = [
        ("prefix", "/"),
        ("prefix", "/a"),
        ("prefix", "/a/b/"),
        ("exact", "/"),
        ("exact", "/a"),
        ("exact", "/a/b"),
        ("exact", "/a/{b}"),
        ("template", "/a/{b}"),
        ("template", "/{a}/b"),
        ("template", "/a/{rest=**}"),
    ];

    proptest::proptest! {
        #[test]
        fn any_path_finds_its_way(path in "[/*a-c{}]{0,40}") {
            let index = index(&["path: {template: '/a/{b}/c'}", "path: {prefix: /a}"]);
            let _ = find(&index, "h", &path);
        }

        /// The route that the index finds is the one that looking at every route finds.
        #[test]
        fn the_index_finds_what_looking_at_all_finds(
            routes in proptest::collection::vec((0..4usize, 0..10usize, 0..3u8), 0..8),
            host in proptest::sample::select(vec!["x.a.svc", "X.A.svc.:80", "y.a.svc", "b.svc", "svc"]),
            path in "(/(a|b|c|\\{b\\})?){1,3}",
            tenant in proptest::bool::ANY,
        ) {
            let texts: Vec<String> = routes.iter().map(|(host, path, condition)| {
                let ((kind, path), host) = (PATHS[*path], HOSTS[*host]);
                let more = ["", ", headers: {x-tenant: '*'}", ", methods: [POST]"];
                let more = more[usize::from(*condition)];
                format!("{{hosts: ['{host}'], path: {{{kind}: '{path}'}}{more}}}")
            }).collect();
            let index = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let mut headers = HeaderMap::new();
            if tenant {
                headers.insert("x-tenant", HeaderValue::from_static("t"));
            }
            let authority = Authority::parse(host).unwrap();
            let (method, path) = (&Method::GET, path.as_str());
            let query = RouteQuery { authority, path, method, headers: &headers, peer: None };
            let ranked = routes.iter().enumerate().filter_map(|(route, (host, at, condition))| {
                let holds = *condition == 0 || (*condition == 1 && tenant);
                let (kind, pattern) = PATHS[*at];
                let host = host_rank(HOSTS[*host], &authority.host()).filter(|_| holds)?;
                Some((host, path_rank(kind, pattern, path)?, u8::MAX - condition, route))
            });
            let expected = ranked.min().map(|(.., route)| route);
            proptest::prop_assert_eq!(index.find(query), expected, "{:?}", texts);
        }
    }
}
