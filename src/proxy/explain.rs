//! Explaining a URL against the running state: the policy's answer, and what the store holds.

use std::sync::Arc;

use http::{HeaderMap, Method};
use outrigger_coherence::Verdict;
use outrigger_policy::explain::{Explanation, Question, explain};
use outrigger_policy::{Arrival, CacheKey, RequestTarget, Side, Url};
use outrigger_semantics::supersede::{self, Answer, Asker, Held};
use outrigger_semantics::{NotStored, Reuse};
use outrigger_store::departed::Departure;
use outrigger_store::lookup::Wanted;
use outrigger_store::{Lookup, Miss};
use outrigger_telemetry::MissCause;
use strum::VariantArray;

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
    /// `hit`, `stale`, `invalid` (a later answer has ended its use), `purged`, `vary-miss`, `miss`,
    /// `refused`, `off` or `unavailable`.
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
    /// Why nothing is held, where that is known: `evicted` or `expired`.
    pub departed: Option<&'static str>,
    /// How many variants of the URL are held in memory.
    pub variants: Option<usize>,
    /// Request fields that select among the variants of the URL (RFC 9111 §4.1).
    pub vary: Vec<String>,
}

/// What an answer of the upstream would do to what is stored (`semantics::supersede`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAnswer {
    /// The answer.
    pub answer: &'static str,
    /// For whom it was asked.
    pub asker: &'static str,
    /// What becomes of the stored response.
    pub effect: &'static str,
    /// The section that says so.
    pub rfc: &'static str,
    /// Why, for an operator.
    pub why: &'static str,
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
    /// What the next answer of the upstream to this request would do to the response in memory.
    pub next: Vec<NextAnswer>,
    /// Why the last response of the key was not stored, while requests are passed on for that.
    pub remembered_uncacheable: Option<NotStored>,
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
    let folded = route.vary.folded(headers);
    let headers = &*folded;
    let key = CacheKey::build(target, headers, &route.key, arrival);
    let directives = route.request_directives(headers);
    let request = RequestView {
        shared,
        route,
        key: &key,
        method,
        headers,
        directives: &directives,
        conditional: true,
        now,
    };
    let wanted = Wanted::of(key.digest(), key.text(), headers);
    let memory = shared.memory.peek(wanted);
    let next = next_answers(request, &memory);
    let departed = shared.memory.departure(key.digest()).map(|why| match why {
        Departure::Evicted => MissCause::Evicted.as_str(),
        Departure::Expired => MissCause::Expired.as_str(),
    });
    let variants = Some(shared.memory.variants(wanted));
    let in_memory = live(request, "memory", memory);
    let departed = departed.filter(|_| in_memory.state == "miss");
    let mut tiers = vec![Live { variants, departed, ..in_memory }];
    for tier in &shared.tiers {
        if request.asks_shared_tiers() {
            tiers.push(live(request, tier.name(), tier.lookup(request.wanted()).await));
        } else {
            tiers.push(Live::nothing(tier.name(), "off"));
        }
    }
    let remembered_uncacheable = request.passed_since();
    let authority = target.authority.as_sent();
    let route_guard = active.guard(route, arrival.entry.map(|entry| (entry, authority)));
    let guard = guard(shared, &route_guard, key.digest());
    let matched = purge::count_here(shared, vec![url_matcher(&active.snapshot, url)]).await;
    Inspection { policy, tiers, matched, next, remembered_uncacheable, guard }
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
            vary: Vec::new(),
            departed: None,
            variants: None,
        }
    }
}

/// The rows of the table for what memory holds now. What may not be stored stands there twice, unless
/// the request has credentials: whether the answer is for everybody shows only when it comes.
fn next_answers(request: RequestView<'_>, memory: &Lookup) -> Vec<NextAnswer> {
    let RequestView { shared, headers, method, .. } = request;
    let stored = match memory {
        Lookup::Hit(entry) => shared.log.verdict(entry) != Verdict::Purged && entry.is_good(),
        _ => false,
    };
    let held = if stored { Held::Older } else { Held::Nothing };
    let askers: &[Asker] = match request.route.cookies.has_credentials(headers) {
        true => &[Asker::Client],
        false if *method == Method::HEAD => &[Asker::Head],
        false => &[Asker::Anyone, Asker::Client],
    };
    let answers = Answer::VARIANTS.iter();
    // Nothing can be confirmed where nothing is stored.
    let possible = answers.filter(|answer| stored || **answer != Answer::Confirms);
    let rows = possible.flat_map(|answer| {
        let differ = stored && *answer == Answer::Unstorable;
        let askers = if differ { askers } else { &askers[..1] };
        askers.iter().map(move |asker| (*answer, *asker))
    });
    rows.map(|(answer, asker)| {
        let cell = supersede::cell(held, answer, asker);
        let (answer, asker, effect) = (answer.as_str(), asker.as_str(), cell.effect.as_str());
        NextAnswer { answer, asker, effect, rfc: cell.rfc, why: cell.why }
    })
    .collect()
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
        _ if entry.lifetimes.invalid => "invalid",
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
        departed: None,
        variants: None,
        vary: entry.variant.names().map(|name| name.to_string()).collect(),
    }
}
