//! Fetching what the store cannot answer: alone, or together with others that want the same.

use std::sync::Arc;
use std::time::Duration;

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use outrigger_policy::explain::coalesce_decision;
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_semantics::reuse::{self, Reuse, ValidateReason};
use outrigger_semantics::{conditional, range};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;
use tokio::sync::oneshot;

use crate::body::{ResponseBody, SharedBody};
use crate::coalesce::flight::{Flight, Reader, Resolution, SharedHead};
use crate::coalesce::table::{FlightKey, Listed, Role};
use crate::pipeline::call::with_interims;
use crate::pipeline::fill::{Fill, Own};
use crate::pipeline::job::{Answer, Job};
use crate::pipeline::lookup::{self, Found};
use crate::pipeline::stand_in::may_stand_in;
use crate::pipeline::trust::Distrust;
use crate::pipeline::{head, pass, respond};
use crate::upstream::UpstreamError;

/// How often a waiter whose response turned out to be another variant, or had expired before it
/// came to it, joins a further fetch. On its own each of many such waiters would ask the upstream.
const REJOINS_MAX: usize = 4;

/// Fetches, with a stored response to validate or without.
pub(crate) async fn fetch(job: &mut Job, stored: Option<Arc<Entry>>, why: Forwarded) -> Answer {
    if let Some(part) = stored.as_ref().and_then(|entry| answer_from_part(job, entry)) {
        return part;
    }
    if job.directives.only_if_cached {
        let mut response = respond::only_if_cached();
        let detail = Some(Outcome::OnlyIfCached.as_str());
        job.tell(&mut response, CacheStatus { detail, ..CacheStatus::default() });
        return Answer::new(response, Outcome::OnlyIfCached);
    }
    if job.parts.method == Method::HEAD {
        return head::forward(job, stored, why).await;
    }
    let whole = stored.filter(|entry| entry.part.is_none());
    if whole.is_none() && job.worker.shared.uncacheable.contains_key(&job.key.digest()) {
        return pass::known_uncacheable(job, why).await;
    }
    let ranged = whole.is_none() && range::parse(&job.parts.headers).is_some();
    let shareable = coalesce_decision(job.route.coalesce, &job.parts.headers, &job.key).yes;
    if ranged || !shareable {
        return alone(job, whole, why, ranged).await;
    }
    together(job, whole, why).await
}

/// Joins the fetch for this key, or leads it.
async fn together(job: &mut Job, stored: Option<Arc<Entry>>, why: Forwarded) -> Answer {
    let shared = Arc::clone(&job.worker.shared);
    let mut key: FlightKey = (job.key.digest(), 0);
    for _ in 0..=REJOINS_MAX {
        // The leader reads like the others, and is no waiter.
        let readers_max = shared.settings.waiters_max.saturating_add(1);
        let overtaken = |flight: &Flight| is_overtaken(job, flight) || has_expired(job, flight);
        match shared.flights.join(key, readers_max, shared.log.applied(), overtaken) {
            Role::Alone => {
                shared.metrics.coalesce_full.inc();
                break;
            }
            Role::Leader(listed, reader) => {
                shared.metrics.coalesce_leaders.inc();
                return lead(job, listed, reader, stored, why).await;
            }
            Role::Waiter(reader) => {
                shared.metrics.coalesce_waiters.inc();
                let limit = Duration::from_millis(shared.settings.wait_ms_max);
                let waited = tokio::time::timeout(limit, in_time(job, reader.resolution())).await;
                let resolution = match waited {
                    Ok(Ok(resolution)) => resolution,
                    Ok(Err(late)) => return instead(job, stored.as_ref(), &late, why),
                    Err(_) => {
                        shared.metrics.coalesce_timeouts.inc();
                        break;
                    }
                };
                match fit(job, &reader, &resolution) {
                    Fit::Yes => return share(job, reader, resolution, stored, why).await,
                    Fit::Variant(hint) => key.1 = hint,
                    Fit::Expired => {}
                    Fit::No => break,
                }
            }
        }
    }
    alone(job, stored, why, false).await
}

/// Whether a purge since a fetch began may concern what it brings: then it is not joined.
fn is_overtaken(job: &Job, flight: &Flight) -> bool {
    let log = &job.worker.shared.log;
    if flight.born_seq() >= log.applied() && log.mirror().holds() == 0 {
        return false;
    }
    let tags = flight.tags();
    let uri = job.key.uri();
    let digest = outrigger_policy::key::digest(uri);
    log.mirror().may_concern(uri, digest, tags.as_deref(), flight.born_seq())
}

/// Whether what a fetch brings has grown stale while its body is on the way. Who comes only now may
/// not have it, and all who do begin one further fetch together, rather than each its own.
fn has_expired(job: &Job, flight: &Flight) -> bool {
    let Some(head) = flight.head() else { return false };
    let times = &head.lifetimes;
    let reuse = reuse::decide(times, &job.directives, job.worker.shared.clock.now(), false);
    times.fresh_until > times.born
        && head.variant.matches(&job.parts.headers)
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
fn fit(job: &Job, reader: &Reader, resolution: &Resolution) -> Fit {
    let request = &job.parts.headers;
    let (variant, headers, times) = match resolution {
        Resolution::Streaming(head) => (&head.variant, &head.headers, &head.lifetimes),
        Resolution::Entry(entry, _) => (&entry.variant, &entry.headers, &entry.lifetimes),
        Resolution::Released => return Fit::Yes,
        Resolution::Failed(error) if error.is_the_leaders_own() => return Fit::No,
        Resolution::Failed(_) => return Fit::Yes,
    };
    if !variant.matches(request) {
        return Fit::Variant(variant_hint(headers, job));
    }
    let validated = matches!(resolution, Resolution::Entry(_, Outcome::Revalidated));
    let had_lifetime = times.fresh_until > times.born || validated;
    let instead = matches!(resolution, Resolution::Entry(_, how) if how.stood_in());
    let now = job.worker.shared.clock.now();
    let usable = match reuse::decide(times, &job.directives, now, false) {
        Reuse::Fresh | Reuse::StaleAllowed | Reuse::StaleWhileRevalidate => true,
        Reuse::Validate(ValidateReason::NoCache) => validated && !reader.is_late(),
        Reuse::Validate(ValidateReason::Request) => false,
        Reuse::Validate(ValidateReason::Stale) => had_lifetime && !reader.is_late(),
    };
    let stands_in = instead && reuse::may_serve_on_error(times, &job.directives, now);
    if usable || stands_in {
        Fit::Yes
    } else if had_lifetime && !times.is_fresh(now) {
        Fit::Expired
    } else {
        Fit::No
    }
}

/// Tells variants apart among fetches, once it is known what the response varies by.
fn variant_hint(headers: &HeaderMap, job: &Job) -> u64 {
    let variant = outrigger_semantics::Variant::of(headers, &job.parts.headers);
    // Zero stands for "not known yet".
    (outrigger_policy::key::digest(&variant.fingerprint()) as u64).max(1)
}

/// Fetches without others.
async fn alone(job: &mut Job, stored: Option<Arc<Entry>>, why: Forwarded, ranged: bool) -> Answer {
    let (listed, Some(reader)) = Listed::private(job.worker.shared.log.applied()) else {
        return pass::known_uncacheable(job, why).await;
    };
    start(job, listed, reader, Asking { stored, why, ranged, for_all: false }).await
}

/// Leads a fetch that others may join.
async fn lead(
    job: &mut Job,
    listed: Listed,
    reader: Reader,
    stored: Option<Arc<Entry>>,
    why: Forwarded,
) -> Answer {
    // Between our lookup and now another fetch may have ended: then its response is there.
    let shared = &job.worker.shared;
    let again =
        lookup::memory(shared, &job.key, &job.parts.headers, &job.directives, shared.clock.now());
    if let Found::Serve(entry, _) = again {
        listed.resolve(Resolution::Entry(Arc::clone(&entry), Outcome::Hit));
        return job.serve(&entry, Outcome::Collapsed);
    }
    start(job, listed, reader, Asking { stored, why, ranged: false, for_all: true }).await
}

/// What a fetch is about.
struct Asking {
    stored: Option<Arc<Entry>>,
    why: Forwarded,
    ranged: bool,
    /// Whether other pods may want the same.
    for_all: bool,
}

/// Fetches although something may be stored, and without joining a fetch that may have begun before
/// the client saw what it saw.
pub(crate) async fn past_store(job: &mut Job, distrust: Distrust) -> Answer {
    if job.directives.only_if_cached || job.parts.method == Method::HEAD {
        return fetch(job, None, Forwarded::Bypass).await;
    }
    job.distrust = Some(distrust);
    let ranged = range::parse(&job.parts.headers).is_some();
    alone(job, None, Forwarded::Bypass, ranged).await
}

/// Starts the fetch in a task of its own, which outlives this client if others wait.
async fn start(job: &mut Job, listed: Listed, reader: Reader, asking: Asking) -> Answer {
    let Asking { stored, why, ranged, for_all } = asking;
    let mut fill = Fill::of(job, stored.clone(), ranged);
    fill.for_all = for_all;
    if stored.is_none() {
        match job.guard.begin_miss(client_of(job)) {
            Ok(permit) => fill.miss = Some(permit),
            Err(over) => {
                let answer = instead(job, None, &over, why);
                listed.resolve(Resolution::Failed(Arc::new(over)));
                return answer;
            }
        }
    }
    let interims = job.interims().map(|(sender, receiver)| {
        fill.call.interim = Some(sender);
        receiver
    });
    let (direct, ours) = oneshot::channel();
    tokio::spawn(fill.run(listed, Some(direct)));
    let waiting = in_time(job, reader.resolution());
    let resolution = match with_interims(&job.peer, interims, waiting).await {
        Ok(resolution) => resolution,
        Err(late) => {
            // It goes on for those who come next, rather than being begun anew by each of them.
            reader.leave_running();
            return instead(job, stored.as_ref(), &late, why);
        }
    };
    if matches!(resolution, Resolution::Released) {
        drop(reader);
        let status = CacheStatus { fwd: Some(why), ..CacheStatus::default() };
        return match ours.await {
            Ok(Own::Response(upstream, refused)) => {
                let fwd_status = Some(upstream.head.status.as_u16());
                let detail = Some(refused.as_str());
                let status = CacheStatus { fwd_status, detail, ..status };
                Answer::new(job.streamed(*upstream, status), Outcome::Miss)
            }
            Ok(Own::Entry(entry)) => job.serve(&entry, Outcome::Revalidated),
            Err(_) => pass::failed(job, &UpstreamError::Aborted, status),
        };
    }
    answer(job, reader, resolution, why, Outcome::Miss)
}

/// A waiter's answer.
async fn share(
    job: &mut Job,
    reader: Reader,
    resolution: Resolution,
    stored: Option<Arc<Entry>>,
    why: Forwarded,
) -> Answer {
    if let Resolution::Failed(error) = &resolution {
        return instead(job, stored.as_ref(), error, why);
    }
    if matches!(resolution, Resolution::Released) {
        job.worker.shared.metrics.coalesce_released.inc();
        drop(reader);
        return pass::known_uncacheable(job, why).await;
    }
    answer(job, reader, resolution, why, Outcome::Collapsed)
}

/// Waits, but not longer than the caller does.
async fn in_time<T>(job: &Job, work: impl Future<Output = T>) -> Result<T, UpstreamError> {
    let Some(caller) = job.caller else { return Ok(work.await) };
    let late = |_| UpstreamError::CallerDeadline { millis: caller.millis };
    tokio::time::timeout_at(caller.at, work).await.map_err(late)
}

/// The answer where the upstream gives none: what is stored, if it may stand in.
fn instead(
    job: &Job,
    stored: Option<&Arc<Entry>>,
    error: &UpstreamError,
    why: Forwarded,
) -> Answer {
    let allowed =
        |entry: &&Arc<Entry>| may_stand_in(&job.worker.shared, entry, &job.directives, job.now);
    match stored.filter(allowed) {
        Some(entry) => job.serve(entry, error.stand_in()),
        None => pass::failed(job, error, CacheStatus { fwd: Some(why), ..CacheStatus::default() }),
    }
}

/// What tells this client apart from others, where each has a bound of its own.
fn client_of(job: &Job) -> Option<u64> {
    match &job.guard.rules.misses.client {
        None => job.peer.address_hash(),
        // Who lacks the field counts together with all who do.
        Some(name) => {
            let value = job.parts.headers.get(name).map_or(&b""[..], http::HeaderValue::as_bytes);
            Some(outrigger_policy::key::digest(value) as u64)
        }
    }
}

fn answer(
    job: &Job,
    reader: Reader,
    resolution: Resolution,
    why: Forwarded,
    outcome: Outcome,
) -> Answer {
    let collapsed = outcome == Outcome::Collapsed;
    let detail = job.distrust.map(Distrust::as_str);
    let status = CacheStatus { fwd: Some(why), collapsed, detail, ..CacheStatus::default() };
    match resolution {
        Resolution::Streaming(head) => {
            let response = shared_response(job, reader, &head, status);
            Answer { response, outcome, seen: Some(head.seen_seq) }
        }
        Resolution::Entry(entry, how) => {
            job.serve(&entry, if how == Outcome::Hit { Outcome::Collapsed } else { how })
        }
        Resolution::Failed(error) => pass::failed(job, &error, status),
        Resolution::Released => pass::failed(job, &UpstreamError::Aborted, status),
    }
}

/// A response whose bytes come from the shared fetch.
fn shared_response(
    job: &Job,
    reader: Reader,
    head: &SharedHead,
    status: CacheStatus<'_>,
) -> Response<ResponseBody> {
    let now = job.worker.shared.clock.now();
    let status = CacheStatus {
        fwd_status: Some(head.status.as_u16()),
        ttl: Some(head.lifetimes.ttl_secs(now)),
        stored: true,
        ..status
    };
    let request = &job.parts.headers;
    let conditional =
        request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE);
    if head.status == StatusCode::OK
        && conditional
        && conditional::is_not_modified(request, &head.headers, now)
    {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = conditional::not_modified_headers(&head.headers);
        job.tell(&mut response, status);
        // Nobody may be left to read; the response is wanted in the store all the same.
        tokio::spawn(drain(reader));
        return response;
    }
    let length = head
        .headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let mut response =
        Response::new(ResponseBody::Shared(SharedBody { reader, length, trailed: false }));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.clone();
    if status.collapsed {
        let headers = response.headers_mut();
        for name in &head.omit {
            headers.remove(name);
        }
        headers.insert(http::header::AGE, HeaderValue::from(head.lifetimes.age_secs(now)));
    }
    job.tell(&mut response, status);
    response
}

/// Reads a shared fetch to its end, for as long as it is for the store.
async fn drain(mut reader: Reader) {
    while reader.is_kept() {
        let Some(Ok(_)) = std::future::poll_fn(|cx| reader.poll_chunk(cx)).await else { return };
    }
}

/// Answers a range from a stored part that covers it and is fresh.
fn answer_from_part(job: &Job, entry: &Entry) -> Option<Answer> {
    let part = entry.part?;
    let usable = entry.lifetimes.is_fresh(job.now)
        && !job.directives.no_cache
        && job.parts.method == Method::GET
        && job.parts.headers.contains_key(RANGE)
        && conditional::if_range_holds(&job.parts.headers, &entry.headers);
    let range::Requested::Ranges(ranges) = range::resolve(&job.parts.headers, part.complete_length)
    else {
        return None;
    };
    let [wanted] = ranges[..] else { return None };
    if !usable || !part.covers(wanted) {
        return None;
    }
    let mut answer = job.serve(entry, Outcome::Hit);
    let from = usize::try_from(wanted.first - part.range.first).ok()?;
    let count = usize::try_from(wanted.count()).ok()?;
    let piece = entry.body.slice(from..from + count);
    respond::one_range(&mut answer.response, piece, wanted, part.complete_length);
    Some(answer)
}
