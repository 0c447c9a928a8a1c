//! The last stage: one outcome, told to the metrics, the access log and the span.

use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use outrigger_policy::Route;
use outrigger_semantics::UnixMillis;
use outrigger_telemetry::access_log::AccessLine;
use outrigger_telemetry::trace::SpanEnd;
use outrigger_telemetry::{Outcome, ServerSpan};

use crate::body::response::ResponseBody;
use crate::pipeline::job::{Answer, Job};
use crate::state::{Active, Shared};

/// What is known about a request when it ends.
pub(crate) struct Record<'a> {
    shared: &'a Shared,
    active: &'a Active,
    route: Option<&'a Arc<Route>>,
    method: &'a http::Method,
    uri: &'a http::Uri,
    headers: &'a http::HeaderMap,
    now: UnixMillis,
    span: Option<ServerSpan>,
}

impl<'a> Record<'a> {
    pub(crate) fn of_request<B>(
        shared: &'a Shared,
        active: &'a Active,
        route: Option<&'a Arc<Route>>,
        request: &'a Request<B>,
        now: UnixMillis,
        span: Option<ServerSpan>,
    ) -> Self {
        Record {
            shared,
            active,
            route,
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            now,
            span,
        }
    }

    pub(crate) fn of_job(job: &'a Job, span: Option<ServerSpan>) -> Self {
        Record {
            shared: &job.worker.shared,
            active: &job.active,
            route: Some(&job.route),
            method: &job.parts.method,
            uri: &job.parts.uri,
            headers: &job.parts.headers,
            now: job.now,
            span,
        }
    }

    /// Tells the outcome and hands the response out.
    pub(crate) fn finish(self, answer: Answer) -> Response<ResponseBody> {
        let Answer { response, outcome, .. } = answer;
        if let Some(route) = self.route {
            let metrics = self.active.metrics(route);
            metrics.count(outcome);
            if outcome.tier() == "memory" {
                metrics.stored_bytes.inc_by(response.body().size_hint().lower());
            }
        }
        if self.span.is_some() || self.shared.access_log.is_some() {
            self.tell(response.status().as_u16(), outcome);
        }
        response
    }

    fn tell(self, status: u16, outcome: Outcome) {
        let route = self.route.map_or("", |route| &route.name);
        let host = self.uri.authority().map_or_else(
            || self.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(""),
            |authority| authority.as_str(),
        );
        let trace_id = self.span.as_ref().map(ServerSpan::trace_id);
        if let Some(log) = &self.shared.access_log {
            let elapsed = self.shared.clock.now().millis_since(self.now).max(0);
            log.write(&AccessLine {
                unix_millis: self.now.0,
                method: self.method.as_str(),
                host,
                target: self.uri.path_and_query().map_or("/", |target| target.as_str()),
                status,
                route,
                outcome,
                millis: elapsed.unsigned_abs(),
                trace_id: trace_id.as_deref(),
            });
        }
        if let Some(span) = self.span {
            span.finish(&SpanEnd { route, outcome, status, path: self.uri.path(), host });
        }
    }
}
