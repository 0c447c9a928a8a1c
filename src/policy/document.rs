//! The policy document as it is written: the names here are the contract with operators.
//!
//! Every struct refuses unknown fields, has no negative flags, and takes units inside values.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::aliases::AliasDocument;
use crate::condition::ConditionDocument;
use crate::error::ValueError;
use crate::guard::GuardDocument;
use crate::mesh::{IdentityPattern, SideDocument};
use crate::values::{
    ByteSize, Consistency, FieldName, HostPattern, MethodName, NamePattern, PartitionBy, Percent,
    Span,
};
use crate::vary::VaryDocument;

pub use crate::path::PathDocument;

/// The name of the built-in route, which applies where no route of the document does.
pub const FALLBACK_ROUTE: &str = "default";

/// A policy document: an ordered list of routes. The most specific matching route applies; where
/// none matches, requests are cached as RFC 9111 allows and nothing beyond.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Outrigger policy")]
pub struct Document {
    /// How the upstream is called and spared, for all routes.
    #[serde(default)]
    pub guard: GuardDocument,
    /// Requests for the application in this pod, as its Envoy sends them.
    #[serde(default)]
    pub inbound: SideDocument,
    /// Requests of the application in this pod, as its Envoy sends them.
    #[serde(default)]
    pub outbound: SideDocument,
    /// Names of one service: a request for one of the names in a list is taken for the name before
    /// the list, in the key, in purges, and towards the upstream. Ports do not count.
    #[serde(default)]
    pub aliases: AliasDocument,
    /// Request header fields by which applications change what a URL means without naming them in
    /// `Vary`, besides those that are known to (`X-Forwarded-Host` and its kin). They are part of
    /// every key whenever a request carries them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_headers: Vec<FieldName>,
    /// The routes.
    #[serde(default)]
    pub routes: Vec<RouteDocument>,
}

/// One route: which requests it is for and what happens to them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RouteDocument {
    /// A name, unique in the document; it appears in metrics, logs, spans and `explain`.
    pub name: String,
    /// Which requests the route is for. Absent: all.
    #[serde(default, rename = "match")]
    pub matches: MatchDocument,
    /// What is cached and for how long.
    #[serde(default)]
    pub cache: CacheDocument,
    /// How the upstream is called.
    #[serde(default)]
    pub guard: GuardDocument,
}

/// Conditions of a route; all that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MatchDocument {
    /// Hosts, any of them. Absent: every host.
    pub hosts: Vec<HostPattern>,
    /// The path. Absent: every path.
    pub path: Option<PathDocument>,
    /// Methods, any of them. Absent: every method.
    pub methods: Vec<MethodName>,
    /// Header fields that must all be there: an exact value, a beginning followed by `*`, or `*`
    /// for any value.
    pub headers: BTreeMap<FieldName, String>,
    /// Authenticated callers, any of them, as in Istio's AuthorizationPolicy:
    /// `cluster.local/ns/shop/sa/frontend`. Absent: everybody.
    pub principals: Vec<IdentityPattern>,
    /// Namespaces of authenticated callers, any of them. Absent: all.
    pub namespaces: Vec<IdentityPattern>,
}

/// Caching of a route.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheDocument {
    /// Whether responses are stored and served from the store.
    pub enabled: bool,
    /// Requests that go past the store: they are neither answered from it nor stored. Any of the
    /// conditions is enough.
    pub bypass: Vec<ConditionDocument>,
    /// Requests whose responses are fetched anew and replace what is stored. Any of the conditions
    /// is enough.
    pub refresh: Vec<ConditionDocument>,
    /// How often a key must have been asked for within ten minutes until a response of it is stored.
    /// Each pod counts for itself.
    pub min_uses: MinUses,
    /// What a HEAD does for which nothing is stored.
    pub head: HeadDocument,
    /// Freshness lifetimes.
    pub ttl: TtlDocument,
    /// Windows in which stale responses may be served. They never override `must-revalidate`,
    /// `proxy-revalidate`, `s-maxage` or `no-cache` of the origin.
    pub stale: StaleDocument,
    /// What tells stored responses apart, besides host, path and query.
    pub key: KeyDocument,
    /// By what the responses of one key vary.
    pub vary: VaryDocument,
    /// Whose responses are kept apart.
    pub partition: PartitionBy,
    /// How coherent the copies of several pods are.
    pub consistency: Consistency,
    /// What goes to Redis, where the process uses it.
    pub redis: RedisDocument,
    /// What happens to responses that set cookies.
    pub set_cookie: SetCookieDocument,
    /// Cookies that do not change responses. A request with any other cookie that is not in
    /// `key.cookies` shares no fetch, and lifetimes that only this policy gives do not count for it.
    pub harmless_cookies: Vec<NamePattern>,
    /// Requests are authenticated although no `Authorization` arrives, since the mesh removed it.
    /// Responses are then shared only if the origin says so or `partition` keeps identities apart.
    pub authenticated: bool,
    /// What a range of an object that is not stored fetches: that range, or the whole object, of
    /// which the range is then cut.
    pub range: RangeDocument,
    /// Larger objects are passed through and not stored. Absent: the limit of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_object_size: Option<ByteSize>,
    /// Whether a response that is about to expire is refreshed behind a hit, by chance: the likelier,
    /// the nearer its end and the longer the upstream took (XFetch). For keys that are asked for
    /// often; nobody then finds them expired.
    pub early_refresh: bool,
    /// Whether concurrent requests for one missing response are collapsed into one.
    pub coalesce: bool,
    /// Longest time for which a request waits for another's fetch to show its response head. Then, of
    /// all who have waited as long, one fetches for the others. `0s` collapses nothing. Absent:
    /// `coalesce.waitMsMax` of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coalesce_wait: Option<Span>,
    /// Whether clients' `Cache-Control` (`no-cache`, `max-age`, …) is obeyed or ignored.
    pub request_directives: RequestDirectivesDocument,
    /// The targeted cache control fields that are obeyed, the first present one decides
    /// (RFC 9213). `surrogate-control` and `x-accel-expires` can be among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<FieldName>>,
    /// What an `Age` that cannot be read means.
    pub invalid_age: InvalidAgeDocument,
}

impl Default for CacheDocument {
    fn default() -> Self {
        CacheDocument {
            enabled: true,
            bypass: Vec::new(),
            refresh: Vec::new(),
            min_uses: MinUses(1),
            head: HeadDocument::Pass,
            ttl: TtlDocument::default(),
            stale: StaleDocument::default(),
            key: KeyDocument::default(),
            vary: VaryDocument::default(),
            partition: PartitionBy::None,
            consistency: Consistency::Eventual,
            redis: RedisDocument::default(),
            set_cookie: SetCookieDocument::Bypass,
            harmless_cookies: Vec::new(),
            authenticated: false,
            range: RangeDocument::Pass,
            max_object_size: None,
            early_refresh: false,
            coalesce: true,
            coalesce_wait: None,
            request_directives: RequestDirectivesDocument::Honor,
            targets: None,
            invalid_age: InvalidAgeDocument::Ignore,
        }
    }
}

/// What a HEAD does for which nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HeadDocument {
    /// It goes to the upstream as it is.
    Pass,
    /// It fetches and stores what a GET would, for the requests that come next.
    Fill,
}

/// A number of uses, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "u8")]
#[schemars(!try_from)]
pub struct MinUses(#[schemars(range(min = 1, max = 100))] pub u8);

impl TryFrom<u8> for MinUses {
    type Error = ValueError;

    fn try_from(uses: u8) -> Result<Self, ValueError> {
        match uses {
            1..=100 => Ok(MinUses(uses)),
            _ => Err(ValueError::form("number of uses", &uses.to_string(), "write 1 to 100")),
        }
    }
}

/// What a range of an object that is not stored fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RangeDocument {
    /// That range; the part is stored and joined with others (RFC 9111 §3.4).
    Pass,
    /// The whole object, for this request and those that come next. For objects of which clients
    /// ask for many ranges, and that are not much larger than these.
    Whole,
}

/// Freshness lifetimes. The origin's own lifetime comes first, unless `override` is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TtlDocument {
    /// For successful responses to which the origin gives no lifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Span>,
    /// Upper bound of every lifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// Replaces the origin's lifetime. `no-store` and `private` still count.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    pub replace: Option<Span>,
    /// For responses of these statuses to which the origin gives no lifetime.
    pub status: BTreeMap<StatusCode, Span>,
    /// Share of the time since `Last-Modified` that counts as lifetime where nothing else gives
    /// one (RFC 9111 §4.2.2). Absent: no heuristic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heuristic: Option<Percent>,
    /// Upper bound of a heuristic lifetime. Absent: one day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heuristic_max: Option<Span>,
}

/// A final response status, 200 to 599.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(try_from = "WrittenCode")]
#[schemars(!try_from)]
pub struct StatusCode(pub u16);

/// A number, or its digits: keys of a map become texts where a document passes through JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenCode {
    Number(u16),
    Digits(String),
}

impl TryFrom<WrittenCode> for StatusCode {
    type Error = ValueError;

    fn try_from(written: WrittenCode) -> Result<Self, ValueError> {
        match written {
            WrittenCode::Number(code) => code.try_into(),
            WrittenCode::Digits(text) => match text.parse::<u16>() {
                Ok(code) => code.try_into(),
                Err(_) => Err(ValueError::form("status", &text, "write a number such as 404")),
            },
        }
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = ValueError;

    fn try_from(code: u16) -> Result<Self, ValueError> {
        if (200..=599).contains(&code) && !matches!(code, 206 | 304 | 416) {
            Ok(StatusCode(code))
        } else {
            Err(ValueError::Status(code))
        }
    }
}

/// Stale windows (RFC 5861) where the origin gives none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct StaleDocument {
    /// Serve stale for this long while a refresh runs behind the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub while_revalidate: Option<Span>,
    /// Serve stale for this long when the upstream fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_error: Option<Span>,
    /// Statuses that count as such a failure, besides 500, 502, 503 and 504: for an upstream that
    /// answers its own trouble with 404, 429 or the like.
    pub statuses: Vec<StatusCode>,
}

/// Further parts of the cache key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct KeyDocument {
    /// How the query counts. What does not count is not forwarded either.
    pub query: QueryDocument,
    /// Request header fields whose values are part of the key.
    pub headers: Vec<FieldName>,
    /// Cookies whose values are part of the key.
    pub cookies: Vec<String>,
}

/// The query as part of the key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct QueryDocument {
    /// Parameters that are removed.
    pub ignore: Vec<NamePattern>,
    /// If given, all other parameters are removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<NamePattern>>,
    /// Parameters are put in the order of their names.
    pub sort: bool,
}

/// The part of Redis in a route.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RedisDocument {
    /// Whether responses go to Redis and come from there.
    pub enabled: bool,
    /// Who shares them.
    pub scope: ScopeDocument,
    /// Larger bodies stay in the pod. Absent: the limit of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_object_size: Option<ByteSize>,
    /// Responses with a shorter lifetime stay in the pod. Absent: the limit of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ttl: Option<Span>,
}

impl Default for RedisDocument {
    fn default() -> Self {
        RedisDocument {
            enabled: true,
            scope: ScopeDocument::Workload,
            max_object_size: None,
            min_ttl: None,
        }
    }
}

/// Who shares what is in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ScopeDocument {
    /// The pods of this workload.
    #[default]
    Workload,
    /// All workloads of the namespace whose routes say so: only for what everybody may see.
    Namespace,
}

/// What happens to a response that sets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SetCookieDocument {
    /// Passed on, not stored.
    #[default]
    Bypass,
    /// Stored without the cookie.
    Strip,
    /// Stored and replayed with the cookie.
    Store,
}

/// Whether clients' cache directives are obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RequestDirectivesDocument {
    /// As RFC 9111 §5.2.1 describes.
    #[default]
    Honor,
    /// Clients cannot force a request through to the upstream.
    Ignore,
}

/// What an `Age` that cannot be read means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InvalidAgeDocument {
    /// As if it were absent (RFC 9111 §5.1).
    #[default]
    Ignore,
    /// The response counts as stale.
    Stale,
}
