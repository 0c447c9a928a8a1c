//! The compiled policy: immutable, shared by all requests, swapped as a whole.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use outrigger_semantics::{RequestDirectives, StoreRules, reuse, supersede};

use crate::aliases::Aliases;
use crate::condition::Condition;
use crate::cookies::CookieRules;
use crate::guard::GuardRules;
use crate::index::RouteIndex;
use crate::key::{KeyRules, Partition, uri_text};
use crate::mesh::{Arrival, Peer, Side, SideDocument};
use crate::query::QueryRules;
use crate::uri::{Authority, RequestTarget, Url};
use crate::values::Consistency;
use crate::vary::VaryRules;

pub use crate::index::RouteQuery;

/// What to do for the requests of one route.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// The name in metrics, logs, spans and `explain`.
    pub name: Arc<str>,
    /// Position among the routes of its snapshot; the fallback route comes last.
    pub id: usize,
    /// Whether responses are stored and served from the store.
    pub cache_enabled: bool,
    /// Requests that go past the store, by any of these.
    pub bypass: Vec<Condition>,
    /// Requests that replace what is stored, by any of these.
    pub refresh: Vec<Condition>,
    /// How often a key must have been asked for until a response of it is stored.
    pub min_uses: u8,
    /// Whether a HEAD for which nothing is stored fetches what a GET would.
    pub head_fills: bool,
    /// Statuses for which stale responses stand in, besides those of RFC 5861 §4.
    pub stale_statuses: Vec<u16>,
    /// What may be stored, and for how long.
    pub store: StoreRules,
    /// What the cache key holds.
    pub key: KeyRules,
    /// By what responses of one key vary.
    pub vary: VaryRules,
    /// Which cookies of a request may tell users apart.
    pub cookies: CookieRules,
    /// Limit for one object in bytes; the process has its own.
    pub object_bytes_max: Option<u64>,
    /// Whether a range of what is not stored fetches the whole.
    pub range_fetches_whole: bool,
    /// Whether concurrent misses are collapsed.
    pub coalesce: bool,
    /// How long a request waits for another's fetch, milliseconds; `None` leaves the process's limit.
    pub coalesce_wait_ms: Option<u64>,
    /// Whether clients' cache directives count.
    pub honor_request_directives: bool,
    /// Whether a response is refreshed before it expires, by chance.
    pub early_refresh: bool,
    /// How the upstream is called and spared.
    pub guard: GuardRules,
    /// How coherent the copies of several pods are.
    pub consistency: Consistency,
    /// What goes to the tier that pods share.
    pub redis: RedisRules,
    /// A hash of the caching rules: stored responses outlive a policy in a tier that is shared by
    /// pods with different ones.
    pub rules_fingerprint: u64,
}

/// What of a route goes to the tier that pods share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisRules {
    /// Whether responses of the route go there and come from there.
    pub enabled: bool,
    /// Whether the whole namespace shares it, or the workload alone.
    pub for_namespace: bool,
    /// Bytes of the largest body; `None` leaves the process's limit.
    pub object_bytes_max: Option<u64>,
    /// Shorter freshness lifetimes stay local, milliseconds; `None` leaves the process's limit.
    pub ttl_ms_min: Option<i64>,
}

/// Why a request is passed through without looking into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Bypass {
    /// The method is neither GET nor HEAD.
    Method,
    /// The route has caching switched off.
    Disabled,
    /// The request wants to change the protocol.
    Upgrade,
    /// A GET or HEAD with a body, whose meaning is not in the key.
    #[strum(serialize = "request-body")]
    Body,
    /// Preconditions that only the origin may judge.
    Precondition,
    /// The request says `no-store`.
    RequestNoStore,
    /// A condition of the route holds.
    #[strum(serialize = "bypass-condition")]
    Condition,
    /// The route keeps callers apart, and this one is not known.
    UnknownPeer,
}

impl Bypass {
    /// The stable name used in `Cache-Status`, metrics, logs and `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// One sentence for an operator.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Method => "only GET and HEAD are answered from the store",
            Self::Disabled => "the route says cache.enabled: false",
            Self::Upgrade => "the request wants to change the protocol (WebSocket and the like)",
            Self::Body => "the request has a body, which is not part of the key",
            Self::Precondition => "If-Match and If-Unmodified-Since are for the origin to judge",
            Self::RequestNoStore => "the request carries Cache-Control: no-store",
            Self::Condition => "a condition of cache.bypass holds for the request",
            Self::UnknownPeer => {
                "the route partitions by peer or namespace, and the caller has no identity from the mesh"
            }
        }
    }
}

/// What a request says about whether it may be answered from the store.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its cache directives, as far as the route obeys them.
    pub directives: &'a RequestDirectives,
    /// What [`is_conditional`](outrigger_semantics::conditional::is_conditional) says of its fields.
    pub conditional: bool,
    /// Its query as the client sent it.
    pub query: Option<&'a str>,
    /// Whether a body follows its head.
    pub has_body: bool,
}

impl Route {
    /// The cache directives of a request, as far as this route obeys them.
    pub fn request_directives(&self, headers: &HeaderMap) -> RequestDirectives {
        if self.honor_request_directives {
            RequestDirectives::parse(headers)
        } else {
            RequestDirectives::default()
        }
    }

    /// Whether a stored response may be served in place of this status, where it is within its
    /// stale-if-error window (RFC 5861 §4).
    pub fn serves_stale_for(&self, status: StatusCode) -> bool {
        supersede::is_error_for_stale(status) || self.stale_statuses.contains(&status.as_u16())
    }

    /// Whether the response to a request is to replace what is stored.
    pub fn refreshes(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        self.refresh.iter().any(|condition| condition.holds(headers, query))
    }

    /// Whether a request may be answered from the store, or else why not. `arrival` is what the mesh
    /// says.
    ///
    /// # Errors
    /// The reason to pass the request through.
    #[inline]
    pub fn classify(&self, request: Intent<'_>, arrival: Arrival<'_>) -> Result<(), Bypass> {
        let Intent { method, headers, directives, conditional, query, has_body } = request;
        if *method != Method::GET && *method != Method::HEAD {
            return Err(Bypass::Method);
        }
        if !self.cache_enabled {
            return Err(Bypass::Disabled);
        }
        if headers.contains_key(http::header::UPGRADE) {
            return Err(Bypass::Upgrade);
        }
        if has_body {
            return Err(Bypass::Body);
        }
        if conditional && reuse::has_origin_preconditions(headers) {
            return Err(Bypass::Precondition);
        }
        if directives.no_store {
            return Err(Bypass::RequestNoStore);
        }
        if self.bypass.iter().any(|condition| condition.holds(headers, query)) {
            return Err(Bypass::Condition);
        }
        let known = match self.key.partition {
            Some(Partition::Peer) => arrival.peer.is_some(),
            Some(Partition::Namespace) => arrival.peer.and_then(Peer::namespace).is_some(),
            Some(Partition::Field(_)) | None => true,
        };
        if !known {
            return Err(Bypass::UnknownPeer);
        }
        Ok(())
    }
}

/// A compiled policy: its routes, the index that finds them, and what names and ports it knows.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) index: RouteIndex,
    pub(crate) version: String,
    pub(crate) sources: Vec<String>,
    pub(crate) inbound: SideDocument,
    pub(crate) outbound: SideDocument,
    pub(crate) aliases: Aliases,
    pub(crate) uri_rules: u128,
}

impl Snapshot {
    /// The route of a request: the most specific one whose conditions all hold, else the fallback.
    pub fn route(&self, query: RouteQuery<'_>) -> &Arc<Route> {
        self.index.find(query).map_or_else(|| self.fallback(), |at| &self.routes[at])
    }

    /// The service that an authority is taken for: the one whose alias it is, or itself.
    pub fn service<'a>(&'a self, authority: Authority<'a>) -> Authority<'a> {
        self.aliases.resolve(authority)
    }

    /// Every route by which a response for a target may have been stored: those that a GET can find,
    /// whatever its header fields and its caller, the most specific first. Routes that do not cache
    /// are among them.
    pub fn possible_routes(&self, target: RequestTarget<'_>) -> Vec<&Arc<Route>> {
        let (found, falls_back) = self.index.possible(self.service(target.authority), target.path);
        let fallback = falls_back.then_some(self.routes.len() - 1);
        found.into_iter().chain(fallback).map(|id| &self.routes[id]).collect()
    }

    /// Whether a response for a target may be stored by any route.
    pub fn may_store(&self, target: RequestTarget<'_>) -> bool {
        self.possible_routes(target).iter().any(|route| route.cache_enabled)
    }

    /// Every canonical URI that a stored response for a target can have, each once: under the query
    /// rules of every route that it may have been stored by. Routes that do not cache count as well,
    /// since they may have cached under an earlier policy. First comes the one of a GET with these
    /// header fields: pods of an older version know no other.
    pub fn canonical_uris(&self, target: RequestTarget<'_>, headers: &HeaderMap) -> Vec<String> {
        let target = RequestTarget { authority: self.service(target.authority), ..target };
        let RequestTarget { authority, path, .. } = target;
        let method = &Method::GET;
        let first = self.route(RouteQuery { authority, path, method, headers, peer: None });
        let mut seen: Vec<&QueryRules> = Vec::new();
        let mut uris = Vec::new();
        for route in std::iter::once(first).chain(self.possible_routes(target)) {
            let rules = &route.key.query;
            if seen.contains(&rules) {
                continue;
            }
            seen.push(rules);
            let uri = String::from_utf8_lossy(&uri_text(target, rules)).into_owned();
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        uris
    }

    /// Whether a route by which a response for a target may have been stored changes queries.
    pub fn rewrites_query(&self, target: RequestTarget<'_>) -> bool {
        self.possible_routes(target).iter().any(|route| !route.key.query.is_identity())
    }

    /// [`Snapshot::canonical_uris`] of all that a request for a URL may ask for, without header fields.
    pub fn canonical_uris_of(&self, url: &Url) -> Vec<String> {
        let mut uris = Vec::new();
        let of_target = |target| self.canonical_uris(target, &HeaderMap::new());
        for uri in url.targets().flat_map(of_target) {
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        uris
    }

    /// A hash of what decides about canonical URIs: with equal hashes, two policies give the same
    /// ones for every target.
    pub fn uri_rules(&self) -> u128 {
        self.uri_rules
    }

    /// What may pass on a side of the pod.
    pub fn side(&self, side: Side) -> &SideDocument {
        match side {
            Side::Inbound => &self.inbound,
            Side::Outbound => &self.outbound,
        }
    }

    /// All routes, the fallback last.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of requests that no other route is for.
    pub fn fallback(&self) -> &Arc<Route> {
        &self.routes[self.routes.len() - 1]
    }

    /// A hash of the folded document: equal policies have equal versions.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the policy came from; empty for the built-in one.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }
}
