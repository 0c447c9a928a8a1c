//! Refreshing behind a response: one that was served stale (RFC 5861 §3), or one that is about to
//! expire.
//!
//! Nobody waits for a refresh, so it gives way to everything else: it is left out while the
//! upstream fails or has no room, and a later request tries again.

use std::sync::Arc;

use outrigger_guard::Slot;
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;
use tokio::time::Instant;

use crate::coalesce::flight::Resolution;
use crate::coalesce::table::RegisteredFlight;
use crate::guard::Urgency;
use crate::pipeline::answer::Answer;
use crate::pipeline::fetch::collapse::{Fetched, flight_key};
use crate::pipeline::fetch::run::Fetch;
use crate::pipeline::lookup::{self, Found};
use crate::pipeline::request::RequestContext;

/// The hint of a flight that nobody looks for.
const UNJOINED: u64 = u64::MAX;

/// Starts a refresh behind an answer, unless the key is being fetched already.
pub(crate) fn refresh(
    context: &Arc<RequestContext>,
    stored: Arc<Entry>,
    answer: Answer,
) -> Fetched {
    let metrics = &context.shared().metrics.guard;
    match place(context, &stored) {
        Err(why) => metrics.count_refresh(why),
        Ok((flight, slot)) => {
            metrics.count_refresh("begun");
            let fetch = Fetch::new(context, Some(stored));
            tokio::spawn(run(fetch, flight, slot));
        }
    }
    Fetched::Answer(answer)
}

/// A place for the refresh, or why there is none.
fn place(
    context: &RequestContext,
    stored: &Entry,
) -> Result<(RegisteredFlight, Slot), &'static str> {
    let shared = &context.worker.shared;
    let digest = context.key.digest();
    if !shared.watch.may_validate(digest) {
        return Err("back-off");
    }
    if context.guard.refusal().is_some() {
        return Err("breaker-open");
    }
    // A refresh that carries credentials must not be joined by other requests.
    let joined = || flight_key(context.view(), Some(stored));
    let key = if context.collapsible { joined() } else { (digest, UNJOINED) };
    let slot = context.guard.begin_refresh().ok_or("too-many")?;
    let (applied, now) = (shared.log.applied(), Instant::now().into_std());
    let flight = shared.flights.begin_refresh(key, applied, now).ok_or("under-way")?;
    Ok((flight, slot))
}

async fn run(fetch: Fetch, flight: RegisteredFlight, slot: Slot) {
    let _slot = slot;
    // Spreads refreshes of responses that expired together.
    let jitter = fetch.refresh_jitter();
    tokio::time::sleep(jitter.mul_f64(fastrand::f64())).await;
    // Another pod may have refreshed it already.
    let view = fetch.view();
    if let Some(Found::Serve(entry, _)) = lookup::shared_copy(view).await
        && entry.lifetimes.is_fresh(view.now)
        && fetch.is_stale(view.now)
    {
        flight.resolve(Resolution::Entry(entry, Outcome::Hit));
        flight.finish(true);
        return;
    }
    fetch.run(Urgency::Refresh, None, flight, None).await;
}
