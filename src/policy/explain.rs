//! Explains how the proxy would decide about a request, and why.
//!
//! The same functions decide here and on the data path, so that an explanation cannot drift from
//! the behaviour.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};
use http::{HeaderMap, Method, StatusCode};
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::storable::{self, RequestFacts};
use outrigger_semantics::{UnixMillis, tags, vary};
use serde::Serialize;

use crate::key::CacheKey;
use crate::mesh::Arrival;
use crate::snapshot::{Intent, Route, RouteQuery, Snapshot};
use crate::uri::{RequestTarget, Url};

/// A request, and optionally the response whose storing is in question.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The method; HEAD is judged as the GET that would be stored.
    pub method: &'a Method,
    /// What is asked for.
    pub url: &'a Url,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// The response: status and header fields.
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    /// What the mesh says.
    pub arrival: Arrival<'a>,
    /// The time to assume.
    pub now: UnixMillis,
}

/// What would happen to the request, and to the response if there is one.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The route that applies.
    pub route: String,
    /// Version of the policy.
    pub policy: String,
    /// The cache key as text.
    pub key: String,
    /// Every canonical URI that a response for this URL can be stored under, by any route whose host
    /// and path match: what a purge of this URL and a write to it invalidate.
    pub uris: Vec<String>,
    /// Whether the store is consulted.
    pub lookup: Decision,
    /// Whether concurrent requests are collapsed.
    pub coalesce: Decision,
    /// How long this request would wait for another's fetch, where its route says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coalesce_wait_ms: Option<u64>,
    /// What else the route says that bears on the request, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Whether the response would be stored; absent when no response was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreDecision>,
}

/// Yes or no, with the reason.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Decision {
    /// Whether it would be done.
    pub yes: bool,
    /// The stable string of the reason.
    pub reason: &'static str,
    /// One sentence that gives the reason to an operator.
    pub because: &'static str,
}

/// Whether and how a response would be stored.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StoreDecision {
    /// Whether it would be stored, and why.
    #[serde(flatten)]
    pub decision: Decision,
    /// Freshness left on arrival, seconds.
    pub ttl_seconds: i64,
    /// Age on arrival, seconds.
    pub age_seconds: u64,
    /// What gave the lifetime.
    pub lifetime_from: &'static str,
    /// Stale-while-revalidate window (RFC 5861 §3), seconds.
    pub stale_while_revalidate_seconds: i64,
    /// Stale-if-error window (RFC 5861 §4), seconds.
    pub stale_if_error_seconds: i64,
    /// Request fields that select the variant (RFC 9111 §4.1).
    pub vary: Vec<String>,
    /// Tags by which the response can be purged.
    pub tags: Vec<String>,
}

/// Whether misses of this request are collapsed: never for requests with credentials, unless the
/// key holds the identity.
pub fn coalesce_decision(route: &Route, headers: &HeaderMap, key: &CacheKey) -> Decision {
    let credentials = route.cookies.has_credentials(headers);
    if !route.coalesce {
        Decision {
            yes: false,
            reason: "disabled",
            because: "the route says cache.coalesce: false, or coalesceWait: 0s",
        }
    } else if credentials && !key.holds_identity() {
        Decision {
            yes: false,
            reason: "credentials",
            because: "the request carries credentials, or a cookie that is neither in the key nor among \
                      harmlessCookies, and the key does not hold the identity",
        }
    } else {
        Decision { yes: true, reason: "collapsed", because: "concurrent misses share one fetch" }
    }
}

/// Explains what would happen to a request, and to a response if one is given.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>) -> Explanation {
    let asked = question.url.target();
    let target = RequestTarget { authority: snapshot.service(asked.authority), ..asked };
    let route = snapshot.route(RouteQuery {
        authority: target.authority,
        path: target.path,
        method: question.method,
        headers: question.headers,
        peer: question.arrival.peer,
    });
    let directives = route.request_directives(question.headers);
    let headers = &*route.vary.folded(question.headers);
    let key = CacheKey::build(target, headers, &route.key, question.arrival);
    let has_body = question
        .headers
        .get(http::header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() != b"0")
        || question.headers.contains_key(http::header::TRANSFER_ENCODING);
    let query = target.query;
    let intent = Intent {
        method: question.method,
        headers: question.headers,
        directives: &directives,
        conditional: true,
        query,
        has_body,
    };
    let classified = route.classify(intent, question.arrival);
    let lookup = match classified {
        Ok(()) if route.refreshes(question.headers, query) => Decision {
            yes: false,
            reason: "refresh",
            because: "a condition of cache.refresh holds: the response replaces what is stored",
        },
        Ok(()) => Decision {
            yes: true,
            reason: "lookup",
            because: "the request may be answered from the store",
        },
        Err(bypass) => {
            Decision { yes: false, reason: bypass.as_str(), because: bypass.explanation() }
        }
    };
    let coalesce = if lookup.yes {
        coalesce_decision(route, question.headers, &key)
    } else if lookup.reason == "refresh" {
        let because = "a fetch under way may have begun before what the request is to see";
        Decision { yes: false, reason: "refresh", because }
    } else {
        Decision { yes: false, reason: "bypass", because: "the store has no part in this request" }
    };
    let store = question.response.map(|(status, of_response)| {
        let request = RequestFacts {
            method: if *question.method == Method::HEAD { &Method::GET } else { question.method },
            headers,
            directives,
            identity_in_key: key.holds_identity(),
            personal_cookies: route.cookies.has_personal(question.headers),
        };
        store_decision(&lookup, request, (status, of_response), question.now, route)
    });
    let coalesce_wait_ms = route.coalesce_wait_ms.filter(|_| coalesce.yes);
    let lookup_or_refresh = lookup.yes || lookup.reason == "refresh";
    Explanation {
        route: route.name.to_string(),
        policy: snapshot.version().to_owned(),
        key: key.display(),
        uris: snapshot.canonical_uris_of(question.url),
        lookup,
        coalesce,
        coalesce_wait_ms,
        also: if lookup_or_refresh { also(route, question, headers) } else { Vec::new() },
        store,
    }
}

/// What a route says beyond its decisions.
fn also(route: &Route, question: &Question<'_>, folded: &HeaderMap) -> Vec<String> {
    let mut said = Vec::new();
    for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
        if question.headers.get(&name) != folded.get(&name) {
            let value = folded.get(&name).and_then(|value| value.to_str().ok());
            let value = value.map_or_else(|| "absent".to_owned(), |value| format!("\"{value}\""));
            said.push(format!("vary: {name} counts as {value}, for the upstream too"));
        }
    }
    for name in &route.vary.ignored {
        said.push(format!("vary.ignore: {name} selects no response"));
    }
    if route.min_uses > 1 {
        let uses = route.min_uses;
        said.push(format!("minUses: stored once asked for {uses} times within ten minutes"));
    }
    if *question.method == Method::HEAD && route.head_fills {
        said.push("head: fill: it fetches and stores what a GET would".to_owned());
    }
    if !route.stale_statuses.is_empty() {
        let statuses: Vec<_> = route.stale_statuses.iter().map(u16::to_string).collect();
        said.push(format!(
            "stale.statuses: within its stale-if-error window a stored response is served in place \
             of {} too",
            statuses.join(", ")
        ));
    }
    said
}

fn store_decision(
    lookup: &Decision,
    request: RequestFacts<'_>,
    (status, headers): (StatusCode, &HeaderMap),
    now: UnixMillis,
    route: &Route,
) -> StoreDecision {
    let rules = &route.store;
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
    let decision = match storable::decide(request, status, headers, exchange, rules) {
        _ if !lookup.yes && lookup.reason != "refresh" => lookup.clone(),
        Ok(_) => Decision { yes: true, reason: "stored", because: "the response may be stored" },
        Err(why) => Decision { yes: false, reason: why.as_str(), because: why.explanation() },
    };
    let window = |until: UnixMillis| until.millis_since(times.fresh_until).max(0) / 1000;
    let vary = if vary::has_star(headers) {
        vec!["*".to_owned()]
    } else {
        let names = vary::vary_names(headers).into_iter();
        names
            .filter(|name| !route.vary.ignored.contains(name))
            .map(|name| name.to_string())
            .collect()
    };
    StoreDecision {
        decision,
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
        let line = |f: &mut std::fmt::Formatter<'_>, name: &str, decision: &Decision| {
            let word = if decision.yes { "yes" } else { "no" };
            writeln!(f, "{name:<10} {word} ({}): {}", decision.reason, decision.because)
        };
        writeln!(f, "{:<10} {}", "route", self.route)?;
        writeln!(f, "{:<10} {}", "key", self.key)?;
        let begins = |uri: &String| self.key.split(' ').next() == Some(uri.as_str());
        if !self.uris.iter().all(begins) {
            writeln!(f, "{:<10} {}", "urls", self.uris.join(", "))?;
        }
        line(f, "lookup", &self.lookup)?;
        line(f, "coalesce", &self.coalesce)?;
        if let Some(wait) = self.coalesce_wait_ms {
            writeln!(f, "{:<10} at most {wait} ms for another's fetch", "waits")?;
        }
        for said in &self.also {
            writeln!(f, "{:<10} {said}", "also")?;
        }
        let Some(store) = &self.store else { return Ok(()) };
        line(f, "store", &store.decision)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(snapshot: &Snapshot, url: &str, headers: &HeaderMap) -> Explanation {
        let url = Url::parse(url).unwrap();
        let question = Question {
            method: &Method::GET,
            url: &url,
            headers,
            response: None,
            arrival: Arrival::default(),
            now: UnixMillis(0),
        };
        explain(snapshot, &question)
    }

    #[test]
    fn it_says_what_requests_do_beside_the_key() {
        let policy = "routes:
  - name: all
    cache:
      bypass: [{header: x-debug}]
      refresh: [{query: fresh}]
      minUses: 3
      stale: {statuses: [404]}
";
        let snapshot = Snapshot::from_yaml("p.yaml", policy).unwrap();
        let none = HeaderMap::new();
        let plain = explained(&snapshot, "http://shop/a", &none);
        assert!(plain.lookup.yes && plain.also.len() == 2, "{plain}");
        let refresh = explained(&snapshot, "http://shop/a?fresh=1", &none);
        assert_eq!((refresh.lookup.yes, refresh.lookup.reason), (false, "refresh"));
        assert_eq!((refresh.coalesce.yes, refresh.coalesce.reason), (false, "refresh"));
        let debug = (http::HeaderName::from_static("x-debug"), http::HeaderValue::from_static("1"));
        let bypass = explained(&snapshot, "http://shop/a", &HeaderMap::from_iter([debug]));
        assert_eq!(bypass.lookup.reason, "bypass-condition");
        assert!(bypass.also.is_empty());
    }

    #[test]
    fn it_says_how_long_a_request_waits_for_anothers_fetch() {
        let policy = "routes:
  - {name: now, match: {path: {exact: /now}}, cache: {coalesceWait: 0s}}
  - {name: soon, match: {path: {exact: /soon}}, cache: {coalesceWait: 2s}}
";
        let snapshot = Snapshot::from_yaml("p.yaml", policy).unwrap();
        let none = HeaderMap::new();
        let now = explained(&snapshot, "http://shop/now", &none);
        assert_eq!((now.coalesce.reason, now.coalesce_wait_ms), ("disabled", None));
        let soon = explained(&snapshot, "http://shop/soon", &none);
        assert_eq!((soon.coalesce.yes, soon.coalesce_wait_ms), (true, Some(2000)));
        assert!(soon.to_string().contains("waits      at most 2000 ms"), "{soon}");
        let other = explained(&snapshot, "http://shop/other", &none);
        assert_eq!((other.coalesce.yes, other.coalesce_wait_ms), (true, None));
        // Who never waits is not told for how long.
        let cookie = (http::header::COOKIE, http::HeaderValue::from_static("a=1"));
        let alone = explained(&snapshot, "http://shop/soon", &HeaderMap::from_iter([cookie]));
        assert_eq!((alone.coalesce.yes, alone.coalesce_wait_ms), (false, None));
    }
}
