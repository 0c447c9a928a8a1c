//! The one place through which every request to the upstream passes. The guard admits the request,
//! it is sent, the guard learns the result, and the route's retry policy may have it sent again.

use std::sync::Arc;
use std::time::Duration;

use outrigger_semantics::freshness::Exchange;
use outrigger_telemetry::Metrics;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::UpstreamError;
use crate::framing::settle_response;
use crate::guard::{Pass, Report};
use crate::headers::ProxyIdentity;
use crate::upstream::address::EndpointAddress;
use crate::upstream::connect::Connector;
use crate::upstream::deadlines::Deadlines;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::pool::Pool;
use crate::upstream::request::UpstreamRequest;
use crate::upstream::response::{UpstreamBody, UpstreamResponse};
use crate::upstream::retry::Retries;
use crate::upstream::settings::UpstreamSettings;

/// The upstream, with what one worker has for itself: its idle connections.
pub(crate) struct Upstream {
    pub(super) settings: Arc<UpstreamSettings>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) connector: Arc<Connector>,
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
    identity: ProxyIdentity,
}

impl Upstream {
    pub(crate) fn new(
        settings: Arc<UpstreamSettings>,
        endpoints: Arc<Endpoints>,
        connector: Arc<Connector>,
        workers: usize,
        metrics: Arc<Metrics>,
        clock: Clock,
        identity: ProxyIdentity,
    ) -> Self {
        let idle_max = settings.pool.idle_connections_max.div_ceil(workers.max(1));
        let pool = Arc::new(Pool::new(idle_max, Duration::from_millis(settings.pool.idle_ms)));
        Upstream { settings, endpoints, connector, pool, metrics, clock, identity }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends a request and waits for the response head. Where the route allows it, a request that
    /// failed is sent again.
    ///
    /// # Errors
    /// The guard refused it, or there is no response.
    pub(crate) async fn call(
        &self,
        mut call: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let deadlines = Deadlines::of(&call, &self.settings);
        let mut retries = Retries::of(&call);
        let mut tried = Vec::new();
        loop {
            let result = self.attempt(&mut call, &deadlines, &mut tried).await;
            match retries.next(&call, result, &deadlines) {
                Ok(result) => return result,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Makes one attempt, from admission by the guard to the response head.
    async fn attempt(
        &self,
        call: &mut UpstreamRequest,
        deadlines: &Deadlines,
        tried: &mut Vec<EndpointAddress>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut pass = call.guard.admit(call.urgency, deadlines.deadline()).await?;
        let started = Instant::now();
        let requested_at = self.clock.now();
        let first_byte = deadlines.first_byte(call.body_sent.take());
        let result = tokio::select! {
            result = self.exchange(call, deadlines, tried, &mut pass.report) => result,
            () = first_byte => Err(deadlines.no_first_byte(tried.last())),
            error = deadlines.over() => Err(error),
        };
        self.metrics.upstream_seconds.observe(started.elapsed().as_secs_f64());
        let (response, lease) = match result {
            Ok(answered) => answered,
            Err(error) => {
                self.metrics.count_upstream(error.code());
                pass.failed(&error);
                return Err(error);
            }
        };
        let (mut head, incoming) = response.into_parts();
        if let Err(reason) = settle_response(head.status, &mut head.headers) {
            let endpoint = tried.last().map_or_else(String::new, ToString::to_string);
            let error = UpstreamError::Invalid { endpoint, reason: reason.to_owned() };
            self.metrics.count_upstream(error.code());
            pass.failed(&error);
            return Err(error);
        }
        let exchange = Exchange { requested_at, responded_at: self.clock.now() };
        let report = reported(pass, &head);
        let mut body = UpstreamBody::new(incoming, lease, deadlines, report);
        if let Err(error) = body.begin(&head).await {
            let endpoint = tried.last().map_or_else(String::new, ToString::to_string);
            let error = UpstreamError::Reset { endpoint, reason: error.to_string() };
            self.metrics.count_upstream(error.code());
            return Err(error);
        }
        self.metrics.count_upstream("answered");
        Ok(UpstreamResponse::new(head, body, exchange, &self.identity))
    }
}

/// Reports a response head to the guard.
fn reported(pass: Pass, head: &http::response::Parts) -> Report {
    let mut report = pass.answered(head.status.as_u16());
    report.grpc(&head.headers);
    report
}
