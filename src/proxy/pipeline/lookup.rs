//! Looking for a stored response: memory first, then the tiers below. The purge log and RFC 9111
//! judge what is found.

use std::sync::Arc;
use std::time::Duration;

use outrigger_coherence::Verdict;
use outrigger_policy::Arrival;
use outrigger_policy::snapshot::{Bypass, Intent};
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::{Reuse, ValidateReason};
use outrigger_store::departed::Departure;
use outrigger_store::lookup::Wanted;
use outrigger_store::{Counted, Entry, Lookup, Miss};
use outrigger_telemetry::{MissCause, Outcome};

use crate::pipeline::request::RequestView;
use crate::pipeline::sharing::share_rules;
use crate::pipeline::stale_if_error::may_serve_on_error;
use crate::pipeline::trust::{self, CATCH_UP_MAX, Distrust};

/// What the store has for a request.
pub(crate) enum Found {
    /// The store is not asked.
    Bypass(Bypass),
    /// The store may not answer here and now.
    Distrusted(Distrust),
    /// A response to serve.
    Serve(Arc<Entry>, Outcome),
    /// A response to serve, and to refresh behind that.
    ServeAndRefresh(Arc<Entry>, Outcome),
    /// A response that the upstream has to confirm.
    Validate(Arc<Entry>, Forwarded),
    /// Nothing to use.
    Nothing(Forwarded, MissCause),
}

/// Asks whether the store may answer at all, then the memory tier. Waits for nothing.
/// `query` is as the client sent it.
pub(crate) fn at_once(
    request: RequestView<'_>,
    query: Option<&str>,
    arrival: Arrival<'_>,
    has_body: bool,
) -> Found {
    let RequestView { shared, route, method, headers, directives, conditional, .. } = request;
    let intent = Intent { method, headers, directives, conditional, query, has_body };
    if let Err(bypass) = route.classify(intent, arrival) {
        return Found::Bypass(bypass);
    }
    if route.refreshes(headers, query) {
        return Found::Distrusted(Distrust::Refresh);
    }
    if let Err(why) = trust::check(&shared.log, route.consistency, headers, request.now) {
        return Found::Distrusted(why);
    }
    let found = early(request, memory(request));
    if let Found::Serve(entry, _) = &found {
        sample(request, entry);
    }
    found
}

/// Goes on where memory alone gave no answer: waits a little for this pod to know what the client
/// has seen, asks the tiers below, and spares clients an upstream that is known to fail.
pub(crate) async fn further(request: RequestView<'_>, found: Found) -> Found {
    let found = match found {
        Found::Distrusted(Distrust::Behind(seq))
            if request.shared.log.until_covers(seq, CATCH_UP_MAX).await =>
        {
            memory(request)
        }
        found => found,
    };
    backing_off(request, below(request, found).await)
}

/// Asks the memory tier.
pub(crate) fn memory(request: RequestView<'_>) -> Found {
    let RequestView { shared, key, .. } = request;
    match shared.memory.get(Wanted::of(key.digest(), key.text(), request.headers)) {
        Lookup::Hit(entry) => {
            let found = judge(request, entry);
            match &found {
                Found::Nothing(..) => shared.metrics.memory_purged.inc(),
                _ => shared.metrics.memory_hits.inc(),
            };
            found
        }
        Lookup::Miss(Miss::Variant) => {
            shared.metrics.memory_misses.inc();
            Found::Nothing(Forwarded::VaryMiss, MissCause::Variant)
        }
        Lookup::Miss(Miss::Uri | Miss::Refused) | Lookup::Unavailable(_) => {
            shared.metrics.memory_misses.inc();
            let cause = match shared.memory.departure(key.digest()) {
                None => MissCause::Cold,
                Some(Departure::Evicted) => MissCause::Evicted,
                Some(Departure::Expired) => MissCause::Expired,
            };
            Found::Nothing(Forwarded::UriMiss, cause)
        }
    }
}

/// Turns a hit on what is about to expire into one with a refresh behind it, by chance (XFetch).
fn early(request: RequestView<'_>, found: Found) -> Found {
    let Found::Serve(entry, Outcome::Hit) = &found else { return found };
    if !request.route.early_refresh {
        return found;
    }
    let left = entry.lifetimes.fresh_until.millis_since(request.now).max(0).unsigned_abs();
    let fetch = Duration::from_millis(u64::from(entry.fetch_millis));
    let due = outrigger_guard::is_due_early(Duration::from_millis(left), fetch, fastrand::f64)
        && request.shared.watch.may_validate(entry.digest);
    if due { Found::ServeAndRefresh(Arc::clone(entry), Outcome::Hit) } else { found }
}

/// Notes one in so many hits, so that tiers learn what is hot.
fn sample(request: RequestView<'_>, entry: &Entry) {
    const ONE_IN: u32 = 64;
    let tiers = &request.shared.tiers;
    if !tiers.is_empty() && fastrand::u32(..ONE_IN) == 0 {
        let rules = share_rules(request.route);
        tiers.iter().for_each(|tier| tier.note_hot(entry, &rules));
    }
}

/// Serves a stale response whose last validation failed, where stale-if-error allows it. The
/// upstream is asked again behind the response and only after a pause: no client waits for an
/// upstream that is known to fail.
fn backing_off(request: RequestView<'_>, found: Found) -> Found {
    let Found::Validate(entry, Forwarded::Stale) = &found else { return found };
    if request.shared.watch.has_failed(request.key.digest()) && may_serve_on_error(request, entry) {
        return Found::ServeAndRefresh(Arc::clone(entry), Outcome::StaleBackOff);
    }
    found
}

/// Asks the tiers below memory where memory has nothing fresh.
async fn below(request: RequestView<'_>, found: Found) -> Found {
    let helps = matches!(found, Found::Nothing(..) | Found::Validate(_, Forwarded::Stale));
    if !helps {
        return found;
    }
    match (shared_copy(request).await, found) {
        (Some(copy), Found::Validate(ours, why)) if is_older(&copy, &ours) => {
            Found::Validate(ours, why)
        }
        (Some(Found::Nothing(..)) | None, found) => found,
        (Some(copy), _) => copy,
    }
}

/// Whether a copy from a tier is older than what memory has (RFC 9111 §4). What memory has is not
/// fresh, or the tier would not have been asked.
fn is_older(copy: &Found, ours: &Entry) -> bool {
    match copy {
        Found::Serve(theirs, _)
        | Found::ServeAndRefresh(theirs, _)
        | Found::Validate(theirs, _) => theirs.recency.is_older_than(ours.recency, false),
        Found::Nothing(..) | Found::Bypass(_) | Found::Distrusted(_) => false,
    }
}

/// What the tiers below memory have for a request, copied to memory; `None` if nothing.
pub(crate) async fn shared_copy(request: RequestView<'_>) -> Option<Found> {
    if !request.asks_shared_tiers() {
        return None;
    }
    for tier in &request.shared.tiers {
        match tier.lookup(request.wanted()).await {
            Lookup::Hit(entry) => match judge(request, Arc::clone(&entry)) {
                Found::Nothing(..) => tier.count(Counted::Purged),
                found => {
                    tier.count(Counted::Hit);
                    request.shared.remember(&entry);
                    return Some(match found {
                        Found::Serve(entry, Outcome::Hit) => Found::Serve(entry, Outcome::RedisHit),
                        found => found,
                    });
                }
            },
            Lookup::Miss(Miss::Uri) => tier.count(Counted::Miss),
            Lookup::Miss(Miss::Variant) => tier.count(Counted::VaryMiss),
            Lookup::Miss(Miss::Refused) => {}
            Lookup::Unavailable(why) => {
                tracing::debug!(tier = tier.name(), why = why.as_str(), "tier unavailable");
            }
        }
    }
    None
}

/// Whether a response that another pod has stored answers a request as it is.
pub(crate) fn is_usable(request: RequestView<'_>, entry: &Arc<Entry>) -> bool {
    matches!(judge(request, Arc::clone(entry)), Found::Serve(..))
}

/// What may be done with a stored response, by the purge log and RFC 9111 §4.
fn judge(request: RequestView<'_>, entry: Arc<Entry>) -> Found {
    let soft = match request.shared.log.verdict(&entry) {
        Verdict::Purged => return Found::Nothing(Forwarded::UriMiss, MissCause::Purged),
        Verdict::Soft => true,
        Verdict::Valid => false,
    };
    if entry.lifetimes.policy_alone && request.is_personal() {
        return Found::Nothing(Forwarded::Request, MissCause::Request);
    }
    let reuse = entry.lifetimes.reuse(request.directives, request.now, soft);
    if entry.part.is_some() {
        // A part answers ranges while it is fresh, and nothing else.
        return match reuse {
            Reuse::Fresh => Found::Validate(entry, Forwarded::Partial),
            _ => Found::Nothing(Forwarded::Partial, MissCause::Partial),
        };
    }
    match reuse {
        Reuse::Fresh => Found::Serve(entry, Outcome::Hit),
        Reuse::StaleAllowed => Found::Serve(entry, Outcome::StaleAllowed),
        Reuse::StaleWhileRevalidate => Found::ServeAndRefresh(entry, Outcome::StaleWhileRevalidate),
        Reuse::Validate(ValidateReason::Request) => Found::Validate(entry, Forwarded::Request),
        Reuse::Validate(_) => Found::Validate(entry, Forwarded::Stale),
    }
}
