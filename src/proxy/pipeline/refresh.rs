//! Refreshing behind a response: one that was served stale (RFC 5861 §3), or one that is about to
//! expire.
//!
//! Nobody waits for a refresh, so it gives way to everything else: it is left out while the
//! upstream fails or has no room, and a later request tries again.

use std::sync::Arc;

use outrigger_guard::Slot;
use outrigger_policy::explain::coalesce_decision;
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::coalesce::flight::Resolution;
use crate::coalesce::table::Listed;
use crate::guard::Urgency;
use crate::pipeline::fill::Fill;
use crate::pipeline::job::Job;
use crate::pipeline::lookup::{self, Found};

/// The hint of a flight that nobody looks for.
const UNJOINED: u64 = u64::MAX;

/// Starts a refresh that nobody waits for, unless the key is being fetched already.
pub(crate) fn begin(job: &Job, entry: &Arc<Entry>) {
    let metrics = &job.worker.shared.metrics.guard;
    match place(job) {
        Err(why) => metrics.count_refresh(why),
        Ok((listed, slot)) => {
            metrics.count_refresh("begun");
            let mut fill = Fill::of(job, Some(Arc::clone(entry)), false);
            fill.call.method = http::Method::GET;
            fill.call.urgency = Urgency::Refresh;
            tokio::spawn(run(fill, listed, slot));
        }
    }
}

/// A place for the refresh, or why there is none.
fn place(job: &Job) -> Result<(Listed, Slot), &'static str> {
    let shared = &job.worker.shared;
    if !shared.watch.may_validate(job.key.digest()) {
        return Err("back-off");
    }
    if job.guard.refusal().is_some() {
        return Err("breaker-open");
    }
    // A refresh that carries credentials is nobody else's to join.
    let shareable = coalesce_decision(job.route.coalesce, &job.parts.headers, &job.key).yes;
    let key = (job.key.digest(), if shareable { 0 } else { UNJOINED });
    let slot = job.guard.begin_refresh().ok_or("too-many")?;
    let listed = shared.flights.begin_refresh(key, shared.log.applied()).ok_or("under-way")?;
    Ok((listed, slot))
}

async fn run(fill: Fill, listed: Listed, slot: Slot) {
    let _slot = slot;
    // What expired together is not fetched together.
    let jitter = fill.call.guard.rules.refresh_jitter;
    tokio::time::sleep(jitter.mul_f64(fastrand::f64())).await;
    // Another pod may have refreshed it already.
    let inquiry = fill.inquiry();
    let now = inquiry.now;
    if let Some(Found::Serve(entry, _)) = lookup::shared_copy(inquiry).await
        && entry.lifetimes.is_fresh(now)
        && fill.is_stale(now)
    {
        listed.resolve(Resolution::Entry(entry, Outcome::Hit));
        listed.finish(true);
        return;
    }
    fill.run(listed, None).await;
}
