//! Looking for a stored response: memory first, then the tiers below.

use std::sync::Arc;

use http::HeaderMap;
use outrigger_coherence::Verdict;
use outrigger_policy::CacheKey;
use outrigger_policy::snapshot::Bypass;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::reuse::{self, Reuse, ValidateReason};
use outrigger_semantics::{RequestDirectives, UnixMillis};
use outrigger_store::lookup::Wanted;
use outrigger_store::{Entry, Lookup, Miss};
use outrigger_telemetry::Outcome;

use crate::app::Shared;
use crate::pipeline::job::Job;

/// What the store says to a request.
pub(crate) enum Found {
    /// The store is not asked.
    Bypass(Bypass),
    /// Serve this.
    Serve(Arc<Entry>, Outcome),
    /// Serve this stale and refresh it behind the response.
    ServeAndRefresh(Arc<Entry>),
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
    let wanted = Wanted { digest: key.digest(), key: key.text(), headers };
    match shared.memory.get(wanted) {
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
        Lookup::Miss(Miss::Uri) | Lookup::Unavailable(_) => {
            shared.metrics.memory_misses.inc();
            Found::Nothing(Forwarded::UriMiss)
        }
    }
}

/// Asks the tiers below memory where memory has nothing. What is found is copied up.
pub(crate) async fn below(job: &Job, found: Found) -> Found {
    if job.worker.shared.tiers.is_empty() || !matches!(found, Found::Nothing(_)) {
        return found;
    }
    let shared = &job.worker.shared;
    let wanted =
        Wanted { digest: job.key.digest(), key: job.key.text(), headers: &job.parts.headers };
    for tier in &shared.tiers {
        match tier.lookup(wanted).await {
            Lookup::Hit(entry) => {
                // A refused copy only means that memory keeps what it has.
                let _ = shared.memory.put(&entry, |have| shared.log.verdict(have) != Verdict::Void);
                return judge(shared, entry, &job.directives, job.now);
            }
            Lookup::Miss(_) => {}
            Lookup::Unavailable(why) => {
                tracing::debug!(tier = tier.name(), why = why.as_str(), "tier unavailable");
            }
        }
    }
    found
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
        Reuse::StaleWhileRevalidate => Found::ServeAndRefresh(entry),
        Reuse::Validate(ValidateReason::Request) => Found::Validate(entry, Forwarded::Request),
        Reuse::Validate(_) => Found::Validate(entry, Forwarded::Stale),
    }
}
