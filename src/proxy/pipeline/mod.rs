//! The life of a request, stage by stage.
//!
//! `admit` checks the request and finds its route; `classify` (in policy) tells whether the store
//! may answer, and `trust` whether this pod knows enough to; `lookup` looks for a stored response;
//! what it finds is served, or `miss` fetches through the coalescer and `fill` stores; `pass`
//! forwards what the store has no part in. Each request keeps one policy snapshot and one reading of the clock from start to end, and ends in
//! one `Outcome`, which `record` hands to metrics, access log and span.

mod admit;
mod call;
mod fill;
pub mod fleet;
mod head;
mod job;
pub mod live;
mod lookup;
mod miss;
mod pass;
mod record;
mod refresh;
mod respond;
mod stand_in;
mod store;
mod trust;
mod unsafe_method;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use outrigger_policy::CacheKey;
use outrigger_policy::values::Consistency;
use outrigger_semantics::fields::strip_nominated;

use crate::body::response::ResponseBody;
use crate::client::ClientConnection;
use crate::state::Worker;

use admit::Door;
use job::{Answer, Job, Way};
use lookup::Found;
use record::Record;

/// Answers Envoy, which asks whether this listener wants requests.
pub(crate) fn health(ready: bool) -> Response<ResponseBody> {
    respond::health(ready)
}

/// Answers one request.
pub(crate) async fn handle(
    worker: &Arc<Worker>,
    peer: &ClientConnection,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    strip_nominated(request.headers_mut());
    let shared = &worker.shared;
    let now = shared.clock.now();
    let active = shared.policy.load();
    let span = shared
        .tracing
        .as_ref()
        .and_then(|tracing| tracing.begin(request.headers(), request.method()));
    let admitted = match admit::admit(&request, &active.snapshot, Door::of(shared, peer.side)) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let route = active.snapshot.routes().last();
            let answer = respond::refused(refusal);
            let record = Record::of_request(shared, &active, route, &request, now, span);
            return record.finish(answer);
        }
    };
    let has_body = !request.body().is_end_stream();
    let directives = admitted.route.request_directives(request.headers());
    let arrival = admitted.arrived.arrival;
    let (method, headers) = (request.method(), request.headers());
    let classified = admitted.route.classify(method, headers, &directives, has_body, arrival);
    let target = admitted.target();
    let key = CacheKey::build(target, headers, &admitted.route.key, arrival);
    let consistency = admitted.route.consistency;
    let found = match classified {
        Ok(()) => match trust::check(&shared.log, consistency, request.headers()) {
            Ok(()) => {
                let found = lookup::memory(shared, &key, request.headers(), &directives, now);
                lookup::early(shared, admitted.route, found, now)
            }
            Err(why) => Found::Distrusted(why),
        },
        Err(bypass) => Found::Bypass(bypass),
    };
    if let Found::Serve(entry, outcome) = &found {
        lookup::sample(shared, admitted.route, entry);
        let mut response = respond::from_entry(shared, entry, &request, now, *outcome);
        if consistency == Consistency::Causal {
            trust::tell(&mut response, request.headers(), entry.seen_seq);
        }
        let record = Record::of_request(shared, &active, Some(admitted.route), &request, now, span);
        return record.finish(Answer::new(response, *outcome));
    }
    let route = Arc::clone(admitted.route);
    let way = Way::of(&admitted, &request);
    let active = arc_swap::Guard::into_inner(active);
    let job = Job::new(worker, active, route, peer, request, way, key, directives, now);
    // Everything below may wait; its state is kept out of the future of a hit.
    Box::pin(slow(job, found, span)).await
}

async fn slow(
    mut job: Job,
    found: Found,
    span: Option<outrigger_telemetry::ServerSpan>,
) -> Response<ResponseBody> {
    if let Some(span) = &span {
        span.inject(&mut job.parts.headers);
    }
    let found = lookup::trusted(&job, found).await;
    let found = lookup::below(&job, found).await;
    let found = lookup::backing_off(&job, found);
    let mut answer = match found {
        Found::Bypass(bypass) => pass::bypass(&mut job, bypass).await,
        Found::Distrusted(why) => miss::past_store(&mut job, why).await,
        Found::Serve(entry, outcome) => job.serve(&entry, outcome),
        Found::ServeAndRefresh(entry, outcome) => {
            refresh::begin(&job, &entry);
            job.serve(&entry, outcome)
        }
        Found::Validate(entry, why) => miss::fetch(&mut job, Some(entry), why).await,
        Found::Nothing(why) => miss::fetch(&mut job, None, why).await,
    };
    if job.consistency == Consistency::Causal {
        let seen = match answer.seen {
            Some(seen) => seen,
            None => job.worker.shared.log.seen().await,
        };
        trust::tell(&mut answer.response, &job.parts.headers, seen);
    }
    Record::of_job(&job, span).finish(answer)
}
