//! The life of a request. Each stage is called once, from here, and decides; `respond` alone turns
//! the decision into a response. A request keeps one policy snapshot and one reading of the clock.

mod admit;
mod answer;
mod exchange;
mod fetch;
mod forward;
mod lookup;
pub mod peers;
mod plan;
mod record;
mod request;
mod respond;
mod sharing;
mod stale_if_error;
mod trust;

use std::borrow::Cow;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use outrigger_semantics::fields::strip_nominated;
use outrigger_telemetry::{Outcome, ServerSpan};

use crate::body::response::ResponseBody;
use crate::client::ClientConnection;
use crate::max_forwards;
use crate::pipeline::answer::Answer;
use crate::pipeline::fetch::Fetched;
use crate::pipeline::lookup::Found;
use crate::pipeline::plan::Plan;
use crate::pipeline::request::{Asked, Payload, Received, RequestContext, Routing};
use crate::state::Worker;
use admit::ListenerContext;
pub(crate) use record::unreadable as record_unreadable;
pub(crate) use request::RequestView;
pub(crate) use respond::{health, unreadable};

/// Answers one request. A hit waits for nothing and ends here.
pub(crate) async fn handle(
    worker: &Arc<Worker>,
    client: &ClientConnection,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    strip_nominated(request.headers_mut());
    let is_last_hop = max_forwards::count_down(&mut request);
    let shared = &*worker.shared;
    let (now, active) = (shared.clock.now(), shared.policy.load());
    let span = shared.tracing.as_ref().and_then(|t| t.begin(request.headers(), request.method()));
    let received = Received::new(shared, &active, &request, now);
    let listener = ListenerContext::of(shared, client.side);
    let has_body = !request.body().is_end_stream();
    let admitted = match admit::admit(&request, has_body, &active.snapshot, listener) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let (route, response) = (active.snapshot.fallback(), respond::refused(refusal));
            return record::record(received, route, response, refusal.outcome, span);
        }
    };
    let (route, arrival) = (admitted.route, admitted.arrived.arrival);
    if is_last_hop {
        let response = respond::last_hop(&request);
        return record::record(received, route, response, Outcome::LastHop, span);
    }
    let folded = route.vary.folded(request.headers());
    let asked = Asked::of(&admitted, &folded, now);
    let view = asked.view(shared, route, request.method(), &folded);
    let found = lookup::at_once(view, request.uri().query(), arrival, has_body);
    let Found::Serve(entry, outcome) = found else {
        // What may wait keeps its state out of the future of a hit.
        let routing = Routing::of(&admitted, request.version());
        if let (Cow::Owned(folded), false) = (folded, matches!(found, Found::Bypass(_))) {
            *request.headers_mut() = folded;
        }
        let active = arc_swap::Guard::into_inner(active);
        let (context, payload) =
            RequestContext::new(worker, active, client, request, routing, asked);
        return Box::pin(slow(context, payload, found, span)).await;
    };
    let answer = trust::at_once(view, Answer::stored(entry, outcome));
    record::record(received, route, respond::respond(view, answer), outcome, span)
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
    let request = context.view();
    let found = lookup::further(request, found).await;
    let fetched = match plan::plan(request, found) {
        Plan::Answer(answer) => Fetched::Answer(answer),
        Plan::AnswerAndRefresh(answer, stored) => fetch::refresh(&context, stored, answer),
        Plan::Fetch(fetch) => fetch::collapse(&context, request, fetch).await,
        Plan::Forward(forward) => Fetched::Forward(forward),
    };
    let answer = match fetched {
        Fetched::Answer(answer) => answer,
        Fetched::Forward(forward) => forward::forward(&context, request, payload, forward).await,
    };
    let answer = stale_if_error::instead(request, answer);
    let answer = trust::with_session(request, answer).await;
    let (outcome, response) = (answer.outcome, respond::respond(request, answer));
    record::record(context.received(), request.route, response, outcome, span)
}
