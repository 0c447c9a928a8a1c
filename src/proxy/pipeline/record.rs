//! The last stage: reports one outcome to the metrics, the access log and the span.

use http::{Method, Response, StatusCode};
use http_body::Body;
use outrigger_policy::Route;
use outrigger_telemetry::access_log::AccessLine;
use outrigger_telemetry::trace::SpanEnd;
use outrigger_telemetry::{AnsweredBy, Outcome, ServerSpan};

use crate::body::response::ResponseBody;
use crate::pipeline::request::Received;
use crate::pipeline::respond;
use crate::state::Shared;

/// Reports how a request ended, and hands on its response.
pub(crate) fn record(
    request: Received<'_>,
    route: &Route,
    response: Response<ResponseBody>,
    outcome: Outcome,
    span: Option<ServerSpan>,
) -> Response<ResponseBody> {
    let metrics = request.active.metrics(route);
    metrics.count(outcome);
    if outcome.answered_by() == AnsweredBy::Memory {
        metrics.stored_bytes.inc_by(response.body().size_hint().lower());
    }
    if span.is_some() || request.shared.access_log.is_some() {
        log(request, route, response.status(), outcome, span);
    }
    if *request.method == Method::HEAD { respond::head_only(response) } else { response }
}

/// Reports a request whose head could not be read, and so has no target and no route.
pub(crate) fn unreadable(shared: &Shared, status: u16) {
    let active = shared.policy.load();
    let (route, outcome) = (active.snapshot.fallback(), Outcome::Rejected);
    active.metrics(route).count(outcome);
    if let Some(log) = &shared.access_log {
        log.write(&AccessLine {
            unix_millis: shared.clock.now().0,
            method: "-",
            host: "",
            target: "-",
            status,
            route: &route.name,
            outcome,
            millis: 0,
            trace_id: None,
        });
    }
}

/// The access log line and the end of the span.
fn log(
    request: Received<'_>,
    route: &Route,
    status: StatusCode,
    outcome: Outcome,
    span: Option<ServerSpan>,
) {
    let host = request.uri.authority().map_or_else(
        || request.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(""),
        |authority| authority.as_str(),
    );
    let (route, status) = (&*route.name, status.as_u16());
    let trace_id = span.as_ref().map(ServerSpan::trace_id);
    if let Some(log) = &request.shared.access_log {
        let elapsed = request.shared.clock.now().millis_since(request.now).max(0);
        log.write(&AccessLine {
            unix_millis: request.now.0,
            method: request.method.as_str(),
            host,
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
            status,
            route,
            outcome,
            millis: elapsed.unsigned_abs(),
            trace_id: trace_id.as_deref(),
        });
    }
    if let Some(span) = span {
        span.finish(&SpanEnd { route, outcome, status, path: request.uri.path(), host });
    }
}
