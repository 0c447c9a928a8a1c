//! Who fetches: one of the requests that want the same, for all of them (RFC 9111 §4, "collapsed"
//! in RFC 9211 §2.6). The fetch itself is `fetch`'s part.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use outrigger_semantics::{NotStored, Reuse, ValidateReason, range};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::coalesce::flight::{Flight, Reader, Resolution};
use crate::coalesce::table::{FlightKey, RegisteredFlight, Role};
use crate::coalesce::vary;
use crate::error::UpstreamError;
use crate::guard::Urgency;
use crate::pipeline::answer::{Answer, Reply};
use crate::pipeline::exchange::with_interims;
use crate::pipeline::fetch::run::{Fetch, ForLeader};
use crate::pipeline::lookup::{self, Found};
use crate::pipeline::plan::{FetchPlan, Forward};
use crate::pipeline::request::{RequestContext, RequestView};

/// How often a waiter whose response turned out to be another variant, or had expired before it
/// came to it, joins a further fetch. On its own each of many such waiters would ask the upstream.
const REJOINS_MAX: usize = 4;

/// Changes the hint of a flight into that of the fetch which those share who have waited for it in
/// vain. Who comes later still waits for the first, which may only be slow.
const IN_VAIN: u64 = 1 << 63;

/// Shortest time after which a refresh in the background counts as hanging for those who need its
/// response. One that usually takes long has twice its usual time.
const REFRESH_PATIENCE: Duration = Duration::from_secs(1);

/// How a fetch ended for one request.
pub(crate) enum Fetched {
    /// With an answer.
    Answer(Answer),
    /// The response is for another request alone, and so this one is forwarded on its own.
    Forward(Forward),
}

/// The part of a request in a fetch.
enum Part {
    /// It fetches, for all who join or for itself.
    Fetch(RegisteredFlight, Option<Reader>),
    /// Another request's fetch has brought something that fits.
    Shared(Reader, Resolution),
    /// Its caller's time ran out while it waited.
    Late(UpstreamError),
}

/// Fetches as planned, or shares another request's fetch.
pub(crate) async fn collapse(
    context: &Arc<RequestContext>,
    request: RequestView<'_>,
    plan: FetchPlan,
) -> Fetched {
    request.shared.metrics.count_miss(plan.cause);
    if request.route.min_uses > 1 {
        request.shared.uses.count(request.key.digest(), request.now);
    }
    let (flight, reader) = match join(context, request, &plan).await {
        Part::Fetch(flight, Some(reader)) => (flight, reader),
        Part::Fetch(_, None) => {
            return Fetched::Forward(Forward::Pass(plan.why, request.passed_since()));
        }
        Part::Shared(reader, resolution) => return shared(request, plan, reader, resolution),
        Part::Late(error) => return failed(plan, Arc::new(error)),
    };
    if flight.is_listed() {
        // Between our lookup and now another fetch may have ended: then its response is there.
        let now = request.shared.clock.now();
        if let Found::Serve(entry, _) = lookup::memory(RequestView { now, ..request }) {
            flight.resolve(Resolution::Entry(Arc::clone(&entry), Outcome::Hit));
            return Fetched::Answer(Answer::stored(entry, Outcome::Collapsed));
        }
    }
    lead(context, plan, flight, reader).await
}

/// Joins the fetch for this key, or begins one.
async fn join(context: &RequestContext, request: RequestView<'_>, plan: &FetchPlan) -> Part {
    let shared = request.shared;
    let alone = || {
        let now = Instant::now().into_std();
        let (flight, reader) = RegisteredFlight::private(shared.log.applied(), now);
        Part::Fetch(flight, reader)
    };
    // A fetch under way may have begun before a client that distrusts saw what it saw.
    if plan.ranged || plan.distrust.is_some() || !context.collapsible {
        return alone();
    }
    let ours = shared.settings.coalesce.wait_ms_max;
    let wait_max = Duration::from_millis(request.route.coalesce_wait_ms.unwrap_or(ours));
    let patience = refresh_patience(plan).min(wait_max);
    // The leader reads like the others, and is no waiter.
    let readers_max = shared.settings.coalesce.waiters_max.saturating_add(1);
    let mut key = flight_key(request, plan.stored.as_deref());
    let mut waited_in_vain = false;
    for _ in 0..=REJOINS_MAX {
        let now = Instant::now().into_std();
        let closed = |flight: &Flight| {
            flight.is_overdue(patience, now)
                || is_overtaken(request, flight)
                || has_expired(request, flight)
        };
        let applied = shared.log.applied();
        let reader = match shared.flights.join(key, readers_max, applied, now, closed) {
            Role::Alone => {
                shared.metrics.coalesce_full.inc();
                return alone();
            }
            Role::Leader(flight, reader) => {
                shared.metrics.coalesce_leaders.inc();
                return Part::Fetch(flight, Some(reader));
            }
            Role::Waiter(reader) => reader,
        };
        shared.metrics.coalesce_waiters.inc();
        let overdue = reader.overdue_at(patience).map(|at| at.saturating_duration_since(now));
        let limit = overdue.map_or(wait_max, |left| left.min(wait_max));
        let waited = tokio::time::timeout(limit, context.in_time(reader.resolution())).await;
        let resolution = match waited {
            Ok(Ok(resolution)) => resolution,
            Ok(Err(late)) => return Part::Late(late),
            Err(_) => {
                shared.metrics.coalesce_timeouts.inc();
                // Of all who have waited, one fetches for the others: an upstream that is slow must
                // not meet all of them at once. A refresh that is overdue gives way to that fetch.
                if overdue.is_none() {
                    if waited_in_vain {
                        return alone();
                    }
                    waited_in_vain = true;
                    key.1 ^= IN_VAIN;
                }
                continue;
            }
        };
        match fit(request, &reader, &resolution) {
            Fit::Yes => return Part::Shared(reader, resolution),
            Fit::Variant(hint) => key.1 = hint,
            Fit::Expired => {}
            Fit::No => return alone(),
        }
    }
    alone()
}

/// Whether a purge since a fetch began may concern what it brings: then it is not joined.
fn is_overtaken(request: RequestView<'_>, flight: &Flight) -> bool {
    let log = &request.shared.log;
    if flight.born_seq() >= log.applied() && log.mirror().holds() == 0 {
        return false;
    }
    let tags = flight.tags();
    let uri = request.key.uri();
    let digest = outrigger_policy::key::digest(uri);
    log.mirror().may_concern(uri, digest, tags.as_deref(), flight.born_seq())
}

/// Whether what a fetch brings has grown stale while its body is on the way. A request that
/// arrives now may not have it; all such requests share one further fetch.
fn has_expired(request: RequestView<'_>, flight: &Flight) -> bool {
    let Some(head) = flight.head() else { return false };
    let times = &head.lifetimes;
    let reuse = times.reuse(request.directives, request.shared.clock.now(), false);
    times.fresh_until > times.born
        && head.variant.matches(request.headers)
        && matches!(reuse, Reuse::Validate(ValidateReason::Stale))
}

/// Whether what a fetch brought answers a waiter.
enum Fit {
    Yes,
    /// It is another variant; the waiter's own is fetched under this hint.
    Variant(u64),
    /// It has expired; another fetch may bring a fresh one.
    Expired,
    No,
}

/// A waiter takes what it could have been given from the store: its variant, reusable without
/// validation, under its own directives (RFC 9111 §4). Who was there before the response was may
/// also take one that has aged on its way.
fn fit(request: RequestView<'_>, reader: &Reader, resolution: &Resolution) -> Fit {
    let (variant, times) = match resolution {
        Resolution::Streaming(head) => (&head.variant, &head.lifetimes),
        Resolution::Entry(entry, _) => (&entry.variant, &entry.lifetimes),
        Resolution::Released => return Fit::Yes,
        Resolution::Failed(error) if error.is_the_leaders_own() => return Fit::No,
        Resolution::Failed(_) => return Fit::Yes,
    };
    if !variant.matches(request.headers) {
        return Fit::Variant(vary::hint(variant.names(), request.headers));
    }
    let validated = matches!(resolution, Resolution::Entry(_, Outcome::Revalidated));
    let had_lifetime = times.fresh_until > times.born || validated;
    let for_error = matches!(resolution, Resolution::Entry(_, how) if how.is_stale_if_error());
    let now = request.shared.clock.now();
    let usable = match times.reuse(request.directives, now, false) {
        Reuse::Fresh | Reuse::StaleAllowed | Reuse::StaleWhileRevalidate => true,
        Reuse::Validate(ValidateReason::NoCache) => validated && !reader.is_late(),
        Reuse::Validate(ValidateReason::Request) => false,
        Reuse::Validate(ValidateReason::Stale) => had_lifetime && !reader.is_late(),
    };
    let on_error = for_error && times.may_serve_on_error(request.directives, now);
    if usable || on_error {
        Fit::Yes
    } else if had_lifetime && !times.is_fresh(now) {
        Fit::Expired
    } else {
        Fit::No
    }
}

/// Which fetch a request joins: that of its own variant, where it is known by what the responses of
/// its key vary.
pub(super) fn flight_key(request: RequestView<'_>, stored: Option<&Entry>) -> FlightKey {
    let digest = request.key.digest();
    let stored = stored.map(|entry| &entry.variant);
    (digest, request.shared.vary.hint(digest, request.headers, stored))
}

/// How old a refresh in the background may be, still without a response head, before a request
/// that needs its response fetches for itself.
fn refresh_patience(plan: &FetchPlan) -> Duration {
    let usual = plan.stored.as_ref().map_or(0, |stored| u64::from(stored.fetch_millis));
    REFRESH_PATIENCE.max(Duration::from_millis(usual.saturating_mul(2)))
}

/// Runs the fetch in a task of its own, which outlives this client.
async fn lead(
    context: &Arc<RequestContext>,
    plan: FetchPlan,
    flight: RegisteredFlight,
    reader: Reader,
) -> Fetched {
    let mut fetch = Fetch::new(context, plan.stored.clone());
    fetch.ranged = plan.ranged;
    fetch.for_peers = flight.is_listed();
    if plan.stored.is_none() {
        match context.guard.begin_miss(context.client_of_misses()) {
            Ok(permit) => fetch.miss = Some(permit),
            Err(over) => {
                let over = Arc::new(over);
                flight.resolve(Resolution::Failed(Arc::clone(&over)));
                return failed(plan, over);
            }
        }
    }
    let (direct, own) = oneshot::channel();
    let waited = with_interims(context, |interim| {
        tokio::spawn(fetch.run(Urgency::Storable, interim, flight, Some(direct)));
        context.in_time(reader.resolution())
    })
    .await;
    match waited {
        Ok(Resolution::Released) => {
            drop(reader);
            Fetched::Answer(match own.await {
                // The whole was asked for in place of a range, and is too large to be kept: the range
                // is asked for as it is, now and while that is remembered.
                Ok(ForLeader::Response(upstream, why @ NotStored::TooLarge))
                    if upstream.head.status == StatusCode::OK && wants_range(context) =>
                {
                    return Fetched::Forward(Forward::Pass(plan.why, Some(why)));
                }
                Ok(ForLeader::Response(mut upstream, refused)) => {
                    // It was asked for without the client's own conditions, which count for it
                    // now (RFC 9110 §13.2.2).
                    upstream.judge_conditions(&context.parts.headers, context.shared().clock.now());
                    Answer::upstream(upstream, Outcome::Miss, plan.why, Some(refused.as_str()))
                }
                Ok(ForLeader::Entry(entry)) => Answer::stored(entry, Outcome::Revalidated),
                Err(_) => Answer::failed(Arc::new(UpstreamError::Aborted), None, plan.why),
            })
        }
        Ok(resolution) => resolved(plan, reader, resolution, Outcome::Miss),
        Err(late) => {
            // It goes on for those who come next, rather than being begun anew by each of them.
            drop(reader);
            failed(plan, Arc::new(late))
        }
    }
}

/// Whether a range of the response is wanted, and not the whole.
fn wants_range(context: &RequestContext) -> bool {
    let headers = &context.parts.headers;
    context.parts.method == Method::GET && range::parse(headers).is_some()
}

/// What a waiter gets of another request's fetch.
fn shared(
    request: RequestView<'_>,
    plan: FetchPlan,
    reader: Reader,
    resolution: Resolution,
) -> Fetched {
    match resolution {
        Resolution::Failed(error) => failed(plan, error),
        Resolution::Released => {
            request.shared.metrics.coalesce_released.inc();
            Fetched::Forward(Forward::Pass(plan.why, request.passed_since()))
        }
        resolution => resolved(plan, reader, resolution, Outcome::Collapsed),
    }
}

/// The answer that a fetch brought, to the request that led it or to one that waited.
fn resolved(plan: FetchPlan, reader: Reader, resolution: Resolution, outcome: Outcome) -> Fetched {
    Fetched::Answer(match resolution {
        Resolution::Streaming(head) => Answer {
            seen: Some(head.seen_seq),
            fwd: Some(plan.why),
            detail: plan.detail(),
            ..Answer::new(Reply::Fetched(reader, head), outcome)
        },
        Resolution::Entry(entry, Outcome::Hit) => Answer::stored(entry, Outcome::Collapsed),
        Resolution::Entry(entry, how) => Answer::stored(entry, how),
        Resolution::Failed(error) => Answer::failed(error, None, plan.why),
        Resolution::Released => Answer::failed(Arc::new(UpstreamError::Aborted), None, plan.why),
    })
}

/// No response; what is stored may be served instead.
fn failed(plan: FetchPlan, error: Arc<UpstreamError>) -> Fetched {
    Fetched::Answer(Answer::failed(error, plan.stored, plan.why))
}
