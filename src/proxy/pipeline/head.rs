//! HEAD: answered from a stored GET response where there is one, and otherwise forwarded; what
//! comes back updates or voids what is stored (RFC 9111 §4.3.5).

use std::sync::Arc;

use outrigger_coherence::Seq;
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_semantics::{Stored, Variant, storable, update};
use outrigger_store::Entry;
use outrigger_store::entry::LogSpan;
use outrigger_telemetry::Outcome;

use crate::headers::from_upstream;
use crate::pipeline::fill::Fill;
use crate::pipeline::job::{Answer, Job};
use crate::pipeline::pass;
use crate::pipeline::stand_in::may_stand_in;
use crate::upstream::UpstreamResponse;

/// HEAD without a usable stored response: it is forwarded, and its answer updates or voids what is
/// stored for GET (RFC 9111 §4.3.5).
pub(crate) async fn forward(job: &mut Job, stored: Option<Arc<Entry>>, why: Forwarded) -> Answer {
    let status = CacheStatus { fwd: Some(why), ..CacheStatus::default() };
    let born_seq = job.worker.shared.log.applied();
    let upstream = match pass::exchange(job).await {
        Ok(upstream) => upstream,
        Err(error) => {
            let shared = &job.worker.shared;
            let allowed =
                |entry: &Arc<Entry>| may_stand_in(shared, entry, &job.directives, job.now);
            return match stored.filter(allowed) {
                Some(entry) => job.serve(&entry, error.stand_in()),
                None => pass::failed(job, &error, status),
            };
        }
    };
    if let Some(entry) = stored.filter(|entry| entry.part.is_none())
        && upstream.head.status == entry.status
    {
        update_from_head(job, &entry, &upstream, born_seq);
    }
    let fwd_status = Some(upstream.head.status.as_u16());
    let response = job.streamed(upstream, CacheStatus { fwd_status, ..status });
    Answer::new(response, Outcome::Miss)
}

fn update_from_head(job: &Job, entry: &Arc<Entry>, upstream: &UpstreamResponse, born: Seq) {
    let context = Fill::of(job, Some(Arc::clone(entry)), false).split().0;
    let mut newer = upstream.head.headers.clone();
    let now = upstream.exchange.responded_at;
    from_upstream(&mut newer, upstream.head.version, &job.worker.shared.identity, now);
    if !update::head_agrees(&newer, &entry.headers) {
        job.worker.shared.memory.remove(entry.digest);
        return;
    }
    let headers = update::updated(&entry.headers, &newer);
    let decided = storable::decide(
        context.request(),
        entry.status,
        &headers,
        upstream.exchange,
        &job.route.store,
    );
    if let Ok(Stored { lifetimes, omit }) = decided {
        let variant = Variant::of(&headers, &context.request);
        let log = LogSpan { born, seen: entry.seen_seq.max(born) };
        let mut fresh = entry.freshened(&headers, &omit, variant, lifetimes, log, context.now());
        fresh.rules_fingerprint = context.rules_fingerprint();
        context.keep(&Arc::new(fresh));
    }
}
