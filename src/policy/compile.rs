//! From a checked document to a snapshot: the one place where the names of the document meet those of
//! the rules that requests are judged by. A new field has its line here and nowhere else.

use std::sync::Arc;

use http::HeaderName;
use outrigger_diagnostic::Diagnostic;
use outrigger_semantics::{SetCookie, StoreRules};

use crate::aliases::Aliases;
use crate::check::check;
use crate::condition::{Condition, ConditionDocument};
use crate::cookies::CookieRules;
use crate::document::{
    CacheDocument, Document, FALLBACK_ROUTE, HeadDocument, InvalidAgeDocument, MatchDocument,
    MinUses, RangeDocument, RedisDocument, RequestDirectivesDocument, ScopeDocument,
    SetCookieDocument,
};
use crate::guard::{self, GuardDocument, GuardRules};
use crate::index::RouteIndex;
use crate::key::{KeyRules, Partition, digest};
use crate::query::QueryRules;
use crate::snapshot::{RedisRules, Route, Snapshot};
use crate::values::{Consistency, FieldName, PartitionBy, Span};
use crate::vary::VaryRules;

impl Snapshot {
    /// The built-in policy: RFC 9111 and nothing beyond it.
    pub fn built_in() -> Self {
        compile(&Document::default(), Vec::new())
    }

    /// Parses, checks and compiles one document.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn from_yaml(source: &str, text: &str) -> Result<Self, Diagnostic> {
        let document = check(source, text)?;
        Ok(compile(&document, vec![source.to_owned()]))
    }
}

/// Compiles a checked document.
pub fn compile(document: &Document, sources: Vec<String>) -> Snapshot {
    let aliases = Aliases::of(&document.aliases);
    let mut silent: Vec<HeaderName> =
        document.silent_headers.iter().map(FieldName::header_name).collect();
    silent.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    silent.dedup();
    let keyed = |mut route: Route| {
        route.key.silent.clone_from(&silent);
        Arc::new(route)
    };
    let mut index = RouteIndex::default();
    let mut routes = Vec::with_capacity(document.routes.len() + 1);
    for (id, route) in document.routes.iter().enumerate() {
        index.insert(id, &route.matches, &aliases);
        routes.push(keyed(compile_route(
            id,
            &route.name,
            &route.cache,
            guard::rules(&route.guard, &document.guard),
            &route.matches,
        )));
    }
    routes.push(keyed(compile_route(
        routes.len(),
        FALLBACK_ROUTE,
        &CacheDocument::default(),
        guard::rules(&GuardDocument::default(), &document.guard),
        &MatchDocument::default(),
    )));
    let canonical = serde_json::to_vec(document).unwrap_or_default();
    let version = format!("{:032x}", digest(&canonical));
    let (inbound, outbound) = (document.inbound.clone(), document.outbound.clone());
    let uri_rules = uri_rules(document);
    Snapshot { routes, index, version, sources, inbound, outbound, aliases, uri_rules }
}

fn compile_route(
    id: usize,
    name: &str,
    cache: &CacheDocument,
    guard: GuardRules,
    matches: &MatchDocument,
) -> Route {
    let mut key = key_rules(cache);
    // Another request for the same URL may find another route, with other rules for storing.
    let by_more_than_url = !(matches.headers.is_empty()
        && matches.principals.is_empty()
        && matches.namespaces.is_empty());
    key.route = by_more_than_url.then(|| name.to_owned());
    Route {
        name: name.into(),
        id,
        cache_enabled: cache.enabled,
        bypass: conditions(&cache.bypass),
        refresh: conditions(&cache.refresh),
        min_uses: cache.min_uses.0,
        head_fills: cache.head == HeadDocument::Fill,
        stale_statuses: cache.stale.statuses.iter().map(|status| status.0).collect(),
        store: store_rules(cache),
        cookies: CookieRules {
            keyed: key.cookies.clone(),
            harmless: cache.harmless_cookies.clone(),
        },
        key,
        vary: VaryRules::of(&cache.vary),
        object_bytes_max: cache.max_object_size.map(|size| size.0),
        range_fetches_whole: cache.range == RangeDocument::Whole,
        coalesce: cache.coalesce && cache.coalesce_wait != Some(Span(0)),
        coalesce_wait_ms: cache.coalesce_wait.map(|wait| wait.0),
        honor_request_directives: cache.request_directives == RequestDirectivesDocument::Honor,
        early_refresh: cache.early_refresh,
        guard,
        consistency: cache.consistency,
        redis: RedisRules {
            enabled: cache.redis.enabled,
            for_namespace: cache.redis.scope == ScopeDocument::Namespace,
            object_bytes_max: cache.redis.max_object_size.map(|size| size.0),
            ttl_ms_min: cache.redis.min_ttl.map(Span::millis),
        },
        rules_fingerprint: rules_fingerprint(cache),
    }
}

fn conditions(documents: &[ConditionDocument]) -> Vec<Condition> {
    documents.iter().filter_map(Condition::of).collect()
}

/// A hash of what decides about canonical URIs: which routes match, in their order, what they make of
/// a query, and the aliases.
fn uri_rules(document: &Document) -> u128 {
    let routes = document.routes.iter().map(|route| (&route.matches, &route.cache.key.query));
    let deciding = (routes.collect::<Vec<_>>(), &document.aliases);
    digest(&serde_json::to_vec(&deciding).unwrap_or_default())
}

/// A hash of what decides about storing: how coherent copies are, where they go, when they are
/// refreshed, which requests reach the store, and how long they wait for each other, do not.
fn rules_fingerprint(cache: &CacheDocument) -> u64 {
    let deciding = CacheDocument {
        consistency: Consistency::Eventual,
        redis: RedisDocument::default(),
        bypass: Vec::new(),
        refresh: Vec::new(),
        min_uses: MinUses(1),
        head: HeadDocument::Pass,
        early_refresh: false,
        coalesce_wait: None,
        ..cache.clone()
    };
    digest(&serde_json::to_vec(&deciding).unwrap_or_default()) as u64
}

fn store_rules(cache: &CacheDocument) -> StoreRules {
    let basis = StoreRules::default();
    let names = |list: &[FieldName]| list.iter().map(FieldName::header_name).collect();
    StoreRules {
        ttl_default_ms: cache.ttl.default.map(Span::millis),
        ttl_max_ms: cache.ttl.max.map(Span::millis),
        ttl_override_ms: cache.ttl.replace.map(Span::millis),
        ttl_status_ms: cache.ttl.status.iter().map(|(code, ttl)| (code.0, ttl.millis())).collect(),
        heuristic_percent: cache.ttl.heuristic.map_or(0, |share| share.0),
        heuristic_max_ms: cache.ttl.heuristic_max.map_or(basis.heuristic_max_ms, Span::millis),
        stale_while_revalidate_ms: cache.stale.while_revalidate.map(Span::millis),
        stale_if_error_ms: cache.stale.if_error.map(Span::millis),
        set_cookie: match cache.set_cookie {
            SetCookieDocument::Bypass => SetCookie::Bypass,
            SetCookieDocument::Strip => SetCookie::Strip,
            SetCookieDocument::Store => SetCookie::Store,
        },
        authenticated: cache.authenticated,
        targets: cache.targets.as_deref().map_or(basis.targets, names),
        invalid_age_is_stale: cache.invalid_age == InvalidAgeDocument::Stale,
    }
}

fn key_rules(cache: &CacheDocument) -> KeyRules {
    let query = &cache.key.query;
    let mut headers: Vec<HeaderName> =
        cache.key.headers.iter().map(FieldName::header_name).collect();
    headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    headers.dedup();
    let mut cookies = cache.key.cookies.clone();
    cookies.sort();
    cookies.dedup();
    KeyRules {
        query: QueryRules {
            ignore: query.ignore.clone(),
            allow: query.allow.clone(),
            sort: query.sort,
        },
        headers,
        silent: Vec::new(),
        cookies,
        partition: match &cache.partition {
            PartitionBy::None => None,
            PartitionBy::Header(name) => Some(Partition::Field(name.header_name())),
            PartitionBy::Peer => Some(Partition::Peer),
            PartitionBy::Namespace => Some(Partition::Namespace),
        },
        route: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::RouteQuery;
    use crate::uri::Authority;
    use http::{HeaderMap, Method};

    const CATALOG: &str = "
routes:
  - name: catalog
    match: {hosts: [catalog.shop.svc], path: {prefix: /products}, methods: [GET, HEAD]}
    cache:
      ttl: {default: 30s, max: 10m, status: {404: 5s}}
      stale: {whileRevalidate: 30s, ifError: 10m}
      key: {query: {ignore: [utm_*], sort: true}, headers: [accept-language]}
      partition: none
      consistency: eventual
    guard: {timeout: 2s}
";

    #[test]
    fn a_document_becomes_routes() {
        let snapshot = Snapshot::from_yaml("p.yaml", CATALOG).unwrap();
        let found = snapshot.route(RouteQuery {
            authority: Authority::parse("catalog.shop.svc:8080").unwrap(),
            path: "/products/1",
            method: &Method::GET,
            headers: &HeaderMap::new(),
            peer: None,
        });
        assert_eq!(&*found.name, "catalog");
        assert_eq!(found.store.ttl_for_status(404), Some(5000));
        assert_eq!(found.guard.deadlines.total_ms, Some(2000));
        assert_eq!(snapshot.routes().last().map(|r| &*r.name), Some(FALLBACK_ROUTE));
    }

    #[test]
    fn equal_policies_have_equal_versions() {
        let a = Snapshot::from_yaml("a", CATALOG).unwrap();
        let b = Snapshot::from_yaml("b", &format!("# a comment\n{CATALOG}")).unwrap();
        assert_eq!(a.version(), b.version());
        assert_ne!(a.version(), Snapshot::built_in().version());
    }
}
