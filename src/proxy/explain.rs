//! Explaining a URL against the running state: the policy's answer, and what the store holds.

use std::sync::Arc;

use http::{HeaderMap, Method};
use outrigger_coherence::Verdict;
use outrigger_policy::explain::{Explanation, Question, explain};
use outrigger_policy::{Arrival, CacheKey, RequestTarget, Side, Url};
use outrigger_semantics::Reuse;
use outrigger_store::lookup::Wanted;
use outrigger_store::{Lookup, Miss};

use crate::guard::RouteGuard;
use crate::matcher::url_matcher;
use crate::pipeline::RequestView;
use crate::purge::{self, Matched};
use crate::state::Shared;

/// What a tier holds for a request, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The tier.
    pub tier: &'static str,
    /// `hit`, `stale`, `purged`, `vary-miss`, `miss`, `refused`, `off` or
    /// `unavailable`.
    pub state: &'static str,
    /// Status of the stored response.
    pub status: Option<u16>,
    /// Age in seconds.
    pub age_seconds: Option<u64>,
    /// Freshness left in seconds; negative when stale.
    pub ttl_seconds: Option<i64>,
    /// Bytes of the body.
    pub body_bytes: Option<usize>,
    /// Position of the purge log when its fetch began.
    pub born_seq: Option<u64>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// All that the process knows about a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// The policy's answer.
    pub policy: Explanation,
    /// What each tier holds, memory first.
    pub tiers: Vec<Live>,
    /// What a purge of the URL would meet in memory: whatever route, partition and variant the
    /// stored responses belong to.
    pub matched: Matched,
    /// Whether the key is remembered as not cacheable.
    pub remembered_uncacheable: bool,
    /// What stands between the request and the upstream.
    pub guard: GuardInspection,
}

/// What the guard would say to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardInspection {
    /// Name of its circuit breaker; `None` without one.
    pub breaker: Option<String>,
    /// State of that.
    pub state: Option<&'static str>,
    /// Why it changed to that.
    pub reason: Option<&'static str>,
    /// Why the request would not be sent, in words; `None` if it would.
    pub refusal: Option<String>,
    /// Failed validations of the key in a row.
    pub failures: u32,
    /// Time until the key may be validated again, milliseconds.
    pub back_off_ms: u64,
}

/// Explains a GET (or another method) for a URL.
pub async fn explain_live(
    shared: &Arc<Shared>,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    arrival: Arrival<'_>,
) -> Inspection {
    let active = shared.active();
    let now = shared.clock.now();
    let asked = url.target();
    let target = RequestTarget { authority: active.snapshot.service(asked.authority), ..asked };
    let outbound = arrival.entry.is_some_and(|(side, _)| side == Side::Outbound);
    let own = shared.settings.mesh.identity.as_deref().filter(|_| outbound);
    let arrival = Arrival { own, ..arrival };
    let question = Question { method, url, headers, response: None, arrival, now };
    let policy = explain(&active.snapshot, &question);
    let route = active.snapshot.route(outrigger_policy::snapshot::RouteQuery {
        authority: target.authority,
        path: target.path,
        method,
        headers,
        peer: arrival.peer,
    });
    let key = CacheKey::build(target, headers, &route.key, arrival);
    let directives = route.request_directives(headers);
    let request =
        RequestView { shared, route, key: &key, method, headers, directives: &directives, now };
    let memory = shared.memory.get(Wanted::of(key.digest(), key.text(), headers));
    let mut tiers = vec![live(request, "memory", memory)];
    for tier in &shared.tiers {
        if request.asks_shared_tiers() {
            tiers.push(live(request, tier.name(), tier.lookup(request.wanted()).await));
        } else {
            tiers.push(Live::nothing(tier.name(), "off"));
        }
    }
    let remembered_uncacheable = shared.hit_for_miss.contains_key(&key.digest());
    let authority = target.authority.as_sent();
    let route_guard = active.guard(route, arrival.entry.map(|entry| (entry, authority)));
    let guard = guard(shared, &route_guard, key.digest());
    let matched = purge::count_here(shared, vec![url_matcher(&active.snapshot, url)]).await;
    Inspection { policy, tiers, matched, remembered_uncacheable, guard }
}

fn guard(shared: &Shared, guard: &RouteGuard, key: u128) -> GuardInspection {
    let breaker = guard.breaker.as_ref();
    let status = breaker.map(|breaker| breaker.machine.status(shared.watch.now()));
    let (failures, left) = shared.watch.backoff(key).unwrap_or_default();
    GuardInspection {
        breaker: breaker.map(|breaker| breaker.name.to_string()),
        state: status.map(|status| status.state.as_str()),
        reason: status.and_then(|status| status.reason).map(outrigger_guard::Reason::as_str),
        refusal: guard.refusal().map(|refusal| refusal.to_string()),
        failures,
        back_off_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Live {
    fn nothing(tier: &'static str, state: &'static str) -> Self {
        Live {
            tier,
            state,
            status: None,
            age_seconds: None,
            ttl_seconds: None,
            body_bytes: None,
            born_seq: None,
            tags: Vec::new(),
        }
    }
}

fn live(request: RequestView<'_>, tier: &'static str, found: Lookup) -> Live {
    let entry = match found {
        Lookup::Hit(entry) => entry,
        Lookup::Miss(Miss::Variant) => return Live::nothing(tier, "vary-miss"),
        Lookup::Miss(Miss::Uri) => return Live::nothing(tier, "miss"),
        Lookup::Miss(Miss::Refused) => return Live::nothing(tier, "refused"),
        Lookup::Unavailable(_) => return Live::nothing(tier, "unavailable"),
    };
    let now = request.now;
    let verdict = request.shared.log.verdict(&entry);
    let soft = verdict == Verdict::Soft;
    let state = match (verdict, entry.lifetimes.reuse(request.directives, now, soft)) {
        (Verdict::Purged, _) => "purged",
        (_, Reuse::Fresh) => "hit",
        _ => "stale",
    };
    Live {
        tier,
        state,
        status: Some(entry.status.as_u16()),
        age_seconds: Some(entry.lifetimes.age_secs(now)),
        ttl_seconds: Some(entry.lifetimes.ttl_secs(now)),
        body_bytes: Some(entry.body.len()),
        born_seq: Some(entry.born_seq),
        tags: entry.tags.iter().map(|tag| tag.to_string()).collect(),
    }
}
