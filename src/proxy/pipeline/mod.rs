//! The life of a request. Each stage is called once, from here, and decides; `respond` alone turns
//! the decision into a response. A request keeps one policy snapshot and one reading of the clock
//! from start to end.

mod admit;
mod answer;
mod collapse;
mod fetch;
mod forward;
pub mod live;
mod lookup;
pub mod peers;
mod plan;
mod record;
mod refresh;
mod request;
mod respond;
mod stale_if_error;
mod store;
mod trust;
mod upstream_request;
mod write;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use outrigger_policy::CacheKey;
use outrigger_policy::values::Consistency;
use outrigger_semantics::fields::strip_nominated;
use outrigger_telemetry::ServerSpan;

use crate::app::Worker;
use crate::body::ResponseBody;
use crate::serve::Peer;

use admit::ListenerContext;
pub(crate) use admit::Refusal;
use answer::Answer;
use collapse::Fetched;
use lookup::Found;
use plan::Plan;
use record::record;
use request::{Payload, Received, RequestContext, RequestView, Routing};
pub(crate) use respond::health;
use respond::respond;

/// Answers one request. A hit waits for nothing and ends here.
pub(crate) async fn handle(
    worker: &Arc<Worker>,
    client: &Peer,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    strip_nominated(request.headers_mut());
    let shared = &*worker.shared;
    let now = shared.clock.now();
    let active = shared.policy.load();
    let span = shared.tracing.as_ref().and_then(|t| t.begin(request.headers(), request.method()));
    let received = Received::new(shared, &active, &request, now);
    let listener = ListenerContext::of(shared, client.mode);
    let admitted = match admit::admit(&request, &active.snapshot, listener) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let response = respond::refused(refusal);
            record(received, active.snapshot.fallback(), &response, refusal.outcome, span);
            return response;
        }
    };
    let (route, arrival, headers) = (admitted.route, admitted.arrived.arrival, request.headers());
    let directives = &route.request_directives(headers);
    let key = CacheKey::build(admitted.target(), headers, &route.key, arrival);
    let method = request.method();
    let view = RequestView { shared, route, key: &key, method, headers, directives, now };
    let found = lookup::at_once(view, arrival, !request.body().is_end_stream());
    if let Found::Serve(entry, outcome) = found {
        let mut answer = Answer::stored(entry, outcome);
        answer.session = answer.seen.filter(|_| route.consistency == Consistency::Causal);
        let response = respond(view, answer);
        record(received, route, &response, outcome, span);
        return response;
    }
    // Everything below may wait; its state is kept out of the future of a hit.
    let (routing, asked) = (Routing::of(&admitted, request.version()), (key, *directives, now));
    let active = arc_swap::Guard::into_inner(active);
    let (context, payload) = RequestContext::new(worker, active, client, request, routing, asked);
    Box::pin(slow(context, payload, found, span)).await
}

async fn slow(
    mut context: RequestContext,
    payload: Payload,
    found: Found,
    span: Option<ServerSpan>,
) -> Response<ResponseBody> {
    if let Some(span) = &span {
        span.inject(&mut context.parts.headers);
    }
    let context = Arc::new(context);
    let found = lookup::further(context.view(), found).await;
    refresh::begin(&context, &found);
    let plan = plan::plan(&context, found);
    let consistency = plan.consistency(&context);
    let fetched = match plan {
        Plan::Answer(answer) => Fetched::Answer(answer),
        Plan::Fetch(fetch) => collapse::fetch(&context, fetch).await,
        Plan::Forward(forward) => Fetched::Forward(forward),
    };
    let mut answer = match fetched {
        Fetched::Answer(answer) => answer,
        Fetched::Forward(forward) => forward::forward(&context, payload, forward).await,
    };
    if consistency == Consistency::Causal {
        answer.session = Some(match answer.seen {
            Some(seen) => seen,
            None => context.shared().log.seen().await,
        });
    }
    let outcome = answer.outcome;
    let response = respond(context.view(), answer);
    record(context.received(), context.route(), &response, outcome, span);
    response
}
