//! Refreshing behind a response that was served stale (RFC 5861 §3).

use std::sync::Arc;

use outrigger_policy::explain::coalesce_verdict;
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::coalesce::flight::Resolution;
use crate::pipeline::fill::Fill;
use crate::pipeline::job::Job;
use crate::pipeline::lookup::{self, Found};

/// The hint of a flight that nobody looks for.
const UNJOINED: u64 = u64::MAX;

/// Starts a refresh that nobody waits for, unless the key is being fetched already.
pub(crate) fn begin(job: &Job, entry: &Arc<Entry>) {
    let shared = &job.worker.shared;
    // A refresh that carries credentials is nobody else's to join.
    let shareable = coalesce_verdict(job.route.coalesce, &job.parts.headers, &job.key).yes;
    let key = (job.key.digest(), if shareable { 0 } else { UNJOINED });
    let Some(listed) = shared.flights.begin_refresh(key, shared.log.applied()) else {
        return;
    };
    let mut fill = Fill::of(job, Some(Arc::clone(entry)), false);
    fill.call.method = http::Method::GET;
    tokio::spawn(async move {
        // Another pod may have refreshed it already.
        let inquiry = fill.inquiry();
        let now = inquiry.now;
        if let Some(Found::Serve(entry, _)) = lookup::shared_copy(inquiry).await
            && entry.lifetimes.is_fresh(now)
        {
            listed.resolve(Resolution::Entry(entry, Outcome::Hit));
            listed.finish(true);
            return;
        }
        fill.run(listed, None).await;
    });
}
