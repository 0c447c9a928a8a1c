//! Why a request would be answered the way it would: the decision of the proxy, in words.
//!
//! The same functions decide here and on the data path, so that an explanation cannot drift from
//! the behaviour.

use http::{HeaderMap, Method, StatusCode};
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::storable::{self, RequestFacts};
use outrigger_semantics::{UnixMillis, tags, vary};
use serde::Serialize;

use crate::key::{CacheKey, RequestTarget};
use crate::mesh::Arrival;
use crate::snapshot::{RouteQuery, Snapshot};

/// A request, and optionally the response whose storing is in question.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Method.
    pub method: &'a Method,
    /// What is asked for.
    pub target: RequestTarget<'a>,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// The response: status and header fields.
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    /// What the mesh says.
    pub arrival: Arrival<'a>,
    /// The time to assume.
    pub now: UnixMillis,
}

/// The answer.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The route that applies.
    pub route: String,
    /// Version of the policy.
    pub policy: String,
    /// The cache key.
    pub key: String,
    /// Whether the store is consulted.
    pub lookup: Verdict,
    /// Whether concurrent requests are collapsed.
    pub coalesce: Verdict,
    /// Whether the response would be stored; absent when no response was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreVerdict>,
}

/// Yes or no, with the reason.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Verdict {
    /// The decision.
    pub yes: bool,
    /// The stable string of the reason.
    pub reason: &'static str,
    /// One sentence.
    pub because: &'static str,
}

/// Whether and how a response would be stored.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StoreVerdict {
    /// The decision.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Freshness left on arrival, seconds.
    pub ttl_seconds: i64,
    /// Age on arrival, seconds.
    pub age_seconds: u64,
    /// What gave the lifetime.
    pub lifetime_from: &'static str,
    /// Stale-while-revalidate window, seconds.
    pub stale_while_revalidate_seconds: i64,
    /// Stale-if-error window, seconds.
    pub stale_if_error_seconds: i64,
    /// Selecting header fields.
    pub vary: Vec<String>,
    /// Tags for purging.
    pub tags: Vec<String>,
}

/// Whether misses of this request are collapsed: never for requests with credentials, unless the
/// key holds the identity.
pub fn coalesce_verdict(route_allows: bool, headers: &HeaderMap, key: &CacheKey) -> Verdict {
    let credentials = headers.contains_key(http::header::AUTHORIZATION)
        || headers.contains_key(http::header::COOKIE);
    if !route_allows {
        Verdict { yes: false, reason: "disabled", because: "the route says cache.coalesce: false" }
    } else if credentials && !key.holds_identity() {
        Verdict {
            yes: false,
            reason: "credentials",
            because: "the request carries credentials and the key does not hold the identity",
        }
    } else {
        Verdict { yes: true, reason: "collapsed", because: "concurrent misses share one fetch" }
    }
}

/// Explains what would happen to a request, and to a response if one is given.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>) -> Explanation {
    let authority = snapshot.authority(question.target.authority);
    let target = RequestTarget { authority, ..question.target };
    let route = snapshot.route(RouteQuery {
        host: target.authority,
        path: target.path,
        method: question.method,
        headers: question.headers,
        peer: question.arrival.peer,
    });
    let directives = route.request_directives(question.headers);
    let key = CacheKey::build(target, question.headers, &route.key, question.arrival);
    let has_body = question
        .headers
        .get(http::header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() != b"0");
    let classified =
        route.classify(question.method, question.headers, &directives, has_body, question.arrival);
    let lookup = match classified {
        Ok(()) => Verdict {
            yes: true,
            reason: "lookup",
            because: "the request may be answered from the store",
        },
        Err(bypass) => {
            Verdict { yes: false, reason: bypass.as_str(), because: bypass.explanation() }
        }
    };
    let coalesce = if lookup.yes {
        coalesce_verdict(route.coalesce, question.headers, &key)
    } else {
        Verdict { yes: false, reason: "bypass", because: "the store has no part in this request" }
    };
    let store = question.response.map(|(status, headers)| {
        let request = RequestFacts {
            method: if *question.method == Method::HEAD { &Method::GET } else { question.method },
            headers: question.headers,
            directives,
            identity_in_key: key.holds_identity(),
        };
        store_verdict(&lookup, request, status, headers, question.now, &route.store)
    });
    Explanation {
        route: route.name.to_string(),
        policy: snapshot.version().to_owned(),
        key: key.display(),
        lookup,
        coalesce,
        store,
    }
}

fn store_verdict(
    lookup: &Verdict,
    request: RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    now: UnixMillis,
    rules: &outrigger_semantics::StoreRules,
) -> StoreVerdict {
    let exchange = Exchange { requested_at: now, responded_at: now };
    let (directives, targeted) =
        outrigger_semantics::targeted::effective_directives(headers, &rules.targets);
    let times = outrigger_semantics::freshness::lifetimes(
        status,
        headers,
        &directives,
        targeted,
        exchange,
        rules,
    );
    let verdict = match storable::decide(request, status, headers, exchange, rules) {
        _ if !lookup.yes => lookup.clone(),
        Ok(_) => Verdict { yes: true, reason: "stored", because: "the response may be stored" },
        Err(why) => Verdict { yes: false, reason: why.as_str(), because: why.explanation() },
    };
    let window = |until: UnixMillis| until.millis_since(times.fresh_until).max(0) / 1000;
    let vary = if vary::has_star(headers) {
        vec!["*".to_owned()]
    } else {
        vary::vary_names(headers).iter().map(ToString::to_string).collect()
    };
    StoreVerdict {
        verdict,
        ttl_seconds: times.ttl_secs(now),
        age_seconds: times.age_secs(now),
        lifetime_from: times.source.as_str(),
        stale_while_revalidate_seconds: window(times.stale_while_revalidate_until),
        stale_if_error_seconds: window(times.stale_if_error_until),
        vary,
        tags: tags::of(headers).into_iter().map(String::from).collect(),
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |f: &mut std::fmt::Formatter<'_>, name: &str, verdict: &Verdict| {
            let word = if verdict.yes { "yes" } else { "no" };
            writeln!(f, "{name:<10} {word} ({}): {}", verdict.reason, verdict.because)
        };
        writeln!(f, "{:<10} {}", "route", self.route)?;
        writeln!(f, "{:<10} {}", "key", self.key)?;
        line(f, "lookup", &self.lookup)?;
        line(f, "coalesce", &self.coalesce)?;
        let Some(store) = &self.store else { return Ok(()) };
        line(f, "store", &store.verdict)?;
        writeln!(
            f,
            "{:<10} {} s left, age {} s, from {}",
            "freshness", store.ttl_seconds, store.age_seconds, store.lifetime_from
        )?;
        writeln!(
            f,
            "{:<10} while-revalidate {} s, if-error {} s",
            "stale", store.stale_while_revalidate_seconds, store.stale_if_error_seconds
        )?;
        for (name, list) in [("vary", &store.vary), ("tags", &store.tags)] {
            if !list.is_empty() {
                writeln!(f, "{name:<10} {}", list.join(", "))?;
            }
        }
        Ok(())
    }
}
