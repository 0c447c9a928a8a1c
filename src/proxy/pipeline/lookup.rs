//! Looking for a stored response: memory first, then the tiers below.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use outrigger_coherence::Verdict;
use outrigger_policy::snapshot::Bypass;
use outrigger_policy::{CacheKey, Route};
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::reuse::{self, Reuse, ValidateReason};
use outrigger_semantics::{RequestDirectives, UnixMillis};
use outrigger_store::lookup::Wanted;
use outrigger_store::{Counted, Entry, Lookup, Miss};
use outrigger_telemetry::Outcome;

use crate::pipeline::fleet::{Inquiry, share_rules};
use crate::pipeline::job::Job;
use crate::pipeline::stand_in::may_stand_in;
use crate::pipeline::trust::{self, Distrust};
use crate::state::Shared;

/// What the store says to a request.
pub(crate) enum Found {
    /// The store is not asked.
    Bypass(Bypass),
    /// The store may not answer here and now.
    Distrusted(Distrust),
    /// Serve this.
    Serve(Arc<Entry>, Outcome),
    /// Serve this and refresh it behind the response.
    ServeAndRefresh(Arc<Entry>, Outcome),
    /// Ask the upstream whether this is still good.
    Validate(Arc<Entry>, Forwarded),
    /// There is nothing to use.
    Nothing(Forwarded),
}

/// Asks the memory tier. Waits for nothing.
pub(crate) fn memory(
    shared: &Shared,
    key: &CacheKey,
    headers: &HeaderMap,
    directives: &RequestDirectives,
    now: UnixMillis,
) -> Found {
    match shared.memory.get(Wanted::of(key.digest(), key.text(), headers)) {
        Lookup::Hit(entry) => {
            let found = judge(shared, entry, directives, now);
            match &found {
                Found::Nothing(_) => shared.metrics.memory_voided.inc(),
                _ => shared.metrics.memory_hits.inc(),
            };
            found
        }
        Lookup::Miss(Miss::Variant) => {
            shared.metrics.memory_misses.inc();
            Found::Nothing(Forwarded::VaryMiss)
        }
        Lookup::Miss(Miss::Uri | Miss::Refused) | Lookup::Unavailable(_) => {
            shared.metrics.memory_misses.inc();
            Found::Nothing(Forwarded::UriMiss)
        }
    }
}

/// Turns a hit on what is about to expire into one with a refresh behind it, by chance (XFetch).
pub(crate) fn early(shared: &Shared, route: &Route, found: Found, now: UnixMillis) -> Found {
    let Found::Serve(entry, Outcome::Hit) = &found else { return found };
    if !route.early_refresh {
        return found;
    }
    let left = entry.lifetimes.fresh_until.millis_since(now).max(0).unsigned_abs();
    let fetch = Duration::from_millis(u64::from(entry.fetch_millis));
    let due = outrigger_guard::is_due_early(Duration::from_millis(left), fetch, fastrand::f64)
        && shared.watch.may_validate(entry.digest);
    if due { Found::ServeAndRefresh(Arc::clone(entry), Outcome::Hit) } else { found }
}

/// Serves what could not be validated the last time, where it may stand in for the upstream: that is
/// asked again behind the response, and only after a pause. No client waits for an upstream that
/// is known to fail.
pub(crate) fn backing_off(job: &Job, found: Found) -> Found {
    let Found::Validate(entry, Forwarded::Stale) = &found else { return found };
    let shared = &job.worker.shared;
    let stands_in = shared.watch.has_failed(job.key.digest())
        && may_stand_in(shared, entry, &job.directives, job.now);
    if !stands_in {
        return found;
    }
    Found::ServeAndRefresh(Arc::clone(entry), Outcome::StaleBackOff)
}

/// Notes one in so many hits, so that tiers learn what is hot.
pub(crate) fn sample(shared: &Shared, route: &Route, entry: &Entry) {
    const ONE_IN: u32 = 64;
    if !shared.tiers.is_empty() && fastrand::u32(..ONE_IN) == 0 {
        let rules = share_rules(route);
        shared.tiers.iter().for_each(|tier| tier.note_hot(entry, &rules));
    }
}

/// Looks into memory after all, if the reason for not trusting it goes away.
pub(crate) async fn trusted(job: &Job, found: Found) -> Found {
    let Found::Distrusted(why) = found else { return found };
    let shared = &job.worker.shared;
    if !trust::regained(&shared.log, why).await {
        return found;
    }
    memory(shared, &job.key, &job.parts.headers, &job.directives, job.now)
}

/// Asks the tiers below memory where memory has nothing fresh. What is found is copied up.
pub(crate) async fn below(job: &Job, found: Found) -> Found {
    let helps = matches!(found, Found::Nothing(_) | Found::Validate(_, Forwarded::Stale));
    if !helps {
        return found;
    }
    match (shared_copy(Inquiry::of(job)).await, found) {
        (Some(copy), Found::Nothing(_)) => copy,
        (Some(Found::Validate(theirs, why)), Found::Validate(ours, _)) => {
            let newer = if theirs.stored_at > ours.stored_at { theirs } else { ours };
            Found::Validate(newer, why)
        }
        (Some(Found::Nothing(_)) | None, found) => found,
        (Some(copy), _) => copy,
    }
}

/// What the tiers below memory have for a request; `None` if nothing.
pub(crate) async fn shared_copy(inquiry: Inquiry<'_>) -> Option<Found> {
    if !inquiry.may_ask() {
        return None;
    }
    for tier in &inquiry.shared.tiers {
        match tier.lookup(inquiry.wanted()).await {
            Lookup::Hit(entry) => match adopted(inquiry, entry) {
                Found::Nothing(_) => tier.count(Counted::Voided),
                found => {
                    tier.count(Counted::Hit);
                    return Some(found);
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
pub(crate) fn is_usable(inquiry: Inquiry<'_>, entry: &Arc<Entry>) -> bool {
    let found = judge(inquiry.shared, Arc::clone(entry), inquiry.directives, inquiry.now);
    matches!(found, Found::Serve(..))
}

/// What may be done with a response that another pod has stored. It is copied to memory.
pub(crate) fn adopted(inquiry: Inquiry<'_>, entry: Arc<Entry>) -> Found {
    let shared = inquiry.shared;
    let found = judge(shared, Arc::clone(&entry), inquiry.directives, inquiry.now);
    if !matches!(found, Found::Nothing(_)) {
        // A refused copy only means that memory keeps what it has.
        let _ = shared.memory.put(&entry, |have| shared.log.verdict(have) != Verdict::Void);
    }
    match found {
        Found::Serve(entry, Outcome::Hit) => Found::Serve(entry, Outcome::RedisHit),
        found => found,
    }
}

/// What may be done with a stored response, by the purge log and RFC 9111.
fn judge(
    shared: &Shared,
    entry: Arc<Entry>,
    directives: &RequestDirectives,
    now: UnixMillis,
) -> Found {
    let soft = match shared.log.verdict(&entry) {
        Verdict::Void => return Found::Nothing(Forwarded::UriMiss),
        Verdict::Soft => true,
        Verdict::Valid => false,
    };
    if entry.part.is_some() {
        // A part answers ranges while it is fresh, and nothing else.
        return match reuse::decide(&entry.lifetimes, directives, now, soft) {
            Reuse::Fresh => Found::Validate(entry, Forwarded::Partial),
            _ => Found::Nothing(Forwarded::Partial),
        };
    }
    match reuse::decide(&entry.lifetimes, directives, now, soft) {
        Reuse::Fresh => Found::Serve(entry, Outcome::Hit),
        Reuse::StaleAllowed => Found::Serve(entry, Outcome::StaleAllowed),
        Reuse::StaleWhileRevalidate => Found::ServeAndRefresh(entry, Outcome::StaleWhileRevalidate),
        Reuse::Validate(ValidateReason::Request) => Found::Validate(entry, Forwarded::Request),
        Reuse::Validate(_) => Found::Validate(entry, Forwarded::Stale),
    }
}
