//! One request to the upstream: every one passes here, whatever it is for. The guard is asked, the
//! request is sent, what became of it is reported to the guard, and perhaps it is sent again.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use outrigger_semantics::freshness::Exchange;
use outrigger_telemetry::Metrics;
use pingora_core::protocols::l4::socket::SocketAddr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::body::request::RequestBody;
use crate::clock::Clock;
use crate::guard::{CallerDeadline, Pass, RouteGuard, Urgency};
use crate::upstream::connect::Connector;
use crate::upstream::deadlines::Limits;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::Pool;
use crate::upstream::response::{UpstreamBody, UpstreamResponse};
use crate::upstream::retry::Retries;
use crate::upstream::settings::{Protocol, UpstreamSettings};

/// A 1xx response on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Interim {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Where 1xx responses go.
pub(crate) type InterimSender = mpsc::Sender<Interim>;

/// An upstream that is named for one request: there is one address, and the protocol is the
/// client's, as Envoy speaks to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) http2: bool,
}

impl Named {
    pub(crate) fn protocol(self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Http1 }
    }
}

/// What is asked of the upstream.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query as sent.
    pub(crate) target: PathAndQuery,
    /// Host and port that the client asked for.
    pub(crate) authority: String,
    /// Where it goes; `None` for an endpoint of the configured upstream.
    pub(crate) to: Option<Named>,
    /// Header fields, hop-by-hop fields already replaced.
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Resolves when the body has been sent; the wait for the response head begins then.
    pub(crate) body_sent: Option<oneshot::Receiver<()>>,
    /// Digest of the cache key, for choosing an endpoint.
    pub(crate) hash: u128,
    pub(crate) guard: Arc<RouteGuard>,
    pub(crate) urgency: Urgency,
    /// When the one caller for whom this is stops waiting.
    pub(crate) caller: Option<CallerDeadline>,
    pub(crate) interim: Option<InterimSender>,
}

impl Call {
    /// Whether it may be sent twice: it has no body, and twice has the effect of once (RFC 9110
    /// §9.2.2).
    pub(crate) fn is_repeatable(&self) -> bool {
        let idempotent = matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        );
        idempotent && self.body.is_empty()
    }

    /// The same call once more, without what it carries in its body.
    pub(crate) fn again(&self) -> Call {
        Call {
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            to: self.to,
            headers: self.headers.clone(),
            body: RequestBody::Empty,
            body_sent: None,
            hash: self.hash,
            guard: Arc::clone(&self.guard),
            urgency: self.urgency,
            caller: self.caller,
            interim: self.interim.clone(),
        }
    }
}

/// The upstream as one worker sees it.
pub(crate) struct Upstream {
    pub(super) settings: Arc<UpstreamSettings>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) connector: Arc<Connector>,
    pub(super) pool: Arc<Pool>,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
}

impl Upstream {
    pub(crate) fn new(
        settings: Arc<UpstreamSettings>,
        endpoints: Arc<Endpoints>,
        connector: Arc<Connector>,
        workers: usize,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let idle_max = settings.pool.idle_connections_max.div_ceil(workers.max(1));
        let pool = Arc::new(Pool::new(idle_max, Duration::from_millis(settings.pool.idle_ms)));
        Upstream { settings, endpoints, connector, pool, metrics, clock }
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
    pub(crate) async fn call(&self, mut call: Call) -> Result<UpstreamResponse, UpstreamError> {
        let limits = Limits::of(&call, &self.settings);
        let mut retries = Retries::of(&call);
        let mut tried = Vec::new();
        loop {
            let result = self.attempt(&mut call, &limits, &mut tried).await;
            match retries.next(&call, result, &limits) {
                Ok(result) => return result,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// One attempt, from the guard's consent to the response head.
    async fn attempt(
        &self,
        call: &mut Call,
        limits: &Limits,
        tried: &mut Vec<SocketAddr>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut pass = call.guard.admit(call.urgency, limits.deadline()).await?;
        let started = Instant::now();
        let requested_at = self.clock.now();
        let first_byte = limits.first_byte(call.body_sent.take());
        let result = tokio::select! {
            result = self.exchange(call, limits, tried, &mut pass.report) => result,
            () = first_byte => Err(limits.no_first_byte(tried.last())),
            error = limits.over() => Err(error),
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
        self.metrics.count_upstream("answered");
        let exchange = Exchange { requested_at, responded_at: self.clock.now() };
        let (head, incoming) = response.into_parts();
        let report = reported(pass, &head);
        let body = UpstreamBody::new(incoming, lease, limits, report);
        Ok(UpstreamResponse { head, body, exchange })
    }
}

/// Tells the guard of a response head.
fn reported(pass: Pass, head: &http::response::Parts) -> crate::guard::Report {
    let mut report = pass.answered(head.status.as_u16());
    report.grpc(&head.headers);
    report
}
