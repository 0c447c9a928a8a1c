//! One request to the upstream: every one passes here, whatever it is for. This is the place for
//! what guards the upstream.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderMap};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use outrigger_policy::snapshot::GuardRules;
use outrigger_semantics::freshness::Exchange;
use outrigger_telemetry::Metrics;
use pingora_core::protocols::l4::socket::SocketAddr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::clock::Clock;
use crate::upstream::connect::{Connector, Fresh};
use crate::upstream::endpoints::Endpoints;
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::{Lease, Pool};
use crate::upstream::response::{UpstreamBody, UpstreamResponse};
use crate::upstream::settings::{HostHeader, UpstreamSettings};

/// Endpoints tried for one request, as long as none can be connected to.
const ENDPOINTS_TRIED_MAX: usize = 3;

/// A 1xx response on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Interim {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Where 1xx responses go.
pub(crate) type InterimSender = mpsc::Sender<Interim>;

/// What is asked of the upstream.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query as sent.
    pub(crate) target: PathAndQuery,
    /// Host and port that the client asked for.
    pub(crate) authority: String,
    /// Header fields, hop-by-hop fields already replaced.
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Resolves when the body has been sent; the wait for the response head begins then.
    pub(crate) body_sent: Option<oneshot::Receiver<()>>,
    /// Digest of the cache key, for choosing an endpoint.
    pub(crate) hash: u128,
    pub(crate) guard: GuardRules,
    pub(crate) interim: Option<InterimSender>,
}

/// The upstream as one worker sees it.
pub(crate) struct Upstream {
    settings: Arc<UpstreamSettings>,
    endpoints: Arc<Endpoints>,
    connector: Arc<Connector>,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// A failure, with the request if it was certainly not processed.
struct Failed {
    error: UpstreamError,
    request: Option<Request<RequestBody>>,
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
        let idle_max = settings.idle_connections_max.div_ceil(workers.max(1));
        let pool = Arc::new(Pool::new(idle_max, Duration::from_millis(settings.idle_ms)));
        Upstream { settings, endpoints, connector, pool, metrics, clock }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends a request and waits for the response head.
    ///
    /// A request that fails on a connection kept from an earlier one, before any byte came back,
    /// is sent once more on a new connection, if that cannot do it twice.
    pub(crate) async fn call(&self, mut call: Call) -> Result<UpstreamResponse, UpstreamError> {
        let started = Instant::now();
        let requested_at = self.clock.now();
        let timeouts = self.settings.timeouts;
        let total_ms = call.guard.total_ms.or(timeouts.total_ms);
        let first_ms = call.guard.first_byte_ms.unwrap_or(timeouts.first_byte_ms);
        let idle_ms = call.guard.idle_ms.unwrap_or(timeouts.between_bytes_ms);
        let deadline = total_ms.map(|ms| started + Duration::from_millis(ms));
        let body_sent = call.body_sent.take();
        let result = match self.endpoints.select(call.hash) {
            None => Err(UpstreamError::NoEndpoint),
            Some(endpoint) => {
                let first = first_byte_limit(body_sent, Duration::from_millis(first_ms));
                tokio::select! {
                    result = self.attempts(&endpoint, call) => result,
                    () = first => Err(UpstreamError::FirstByteTimeout {
                        endpoint: endpoint.to_string(),
                        millis: first_ms,
                    }),
                    () = total_limit(deadline) => {
                        Err(UpstreamError::TotalTimeout { millis: total_ms.unwrap_or(0) })
                    }
                }
            }
        };
        self.metrics.upstream_seconds.observe(started.elapsed().as_secs_f64());
        match result {
            Ok((response, lease)) => {
                self.metrics.count_upstream("answered");
                let exchange = Exchange { requested_at, responded_at: self.clock.now() };
                let (head, incoming) = response.into_parts();
                let idle = Duration::from_millis(idle_ms);
                let body = UpstreamBody::new(incoming, lease, idle, deadline);
                Ok(UpstreamResponse { head, body, exchange })
            }
            Err(error) => {
                self.metrics.count_upstream(error.code());
                Err(error)
            }
        }
    }

    async fn attempts(
        &self,
        endpoint: &SocketAddr,
        call: Call,
    ) -> Result<(Response<Incoming>, Option<Lease>), UpstreamError> {
        // What is needed to send the request again: only for requests without a body.
        let again = (call.body.is_empty() && is_idempotent(&call.method)).then(|| {
            (call.method.clone(), call.target.clone(), call.authority.clone(), call.headers.clone())
        });
        let interim = call.interim.clone();
        let hash = call.hash;
        let mut request = self.request(call);
        if let Some(kept) = self.kept(endpoint) {
            self.metrics.upstream_reused.inc();
            match self.send(endpoint, kept, request).await {
                Ok(done) => return Ok(done),
                Err(Failed { request: Some(unsent), .. }) => request = unsent,
                Err(Failed { error: error @ UpstreamError::Reset { .. }, request: None }) => {
                    let Some((method, target, authority, headers)) = again else {
                        return Err(error);
                    };
                    request = self.request(Call {
                        method,
                        target,
                        authority,
                        headers,
                        body: RequestBody::Empty,
                        body_sent: None,
                        hash,
                        guard: GuardRules::default(),
                        interim,
                    });
                }
                Err(failed) => return Err(failed.error),
            }
        }
        // Boxed: its state is many times that of everything else here, and rarely needed.
        let (endpoint, fresh) = Box::pin(self.connect(endpoint, hash)).await?;
        self.send(&endpoint, fresh, request).await.map_err(|failed| failed.error)
    }

    /// Opens a connection; where an endpoint cannot be reached, to another one. Nothing has been
    /// sent yet, so that this is safe for every request.
    async fn connect(
        &self,
        first: &SocketAddr,
        hash: u128,
    ) -> Result<(SocketAddr, Fresh), UpstreamError> {
        let mut tried = vec![first.clone()];
        let mut endpoint = first.clone();
        loop {
            self.metrics.upstream_connects.inc();
            let error = match self.connector.connect(&endpoint, &self.settings).await {
                Ok(fresh) => {
                    if let Fresh::Http2(sender) = &fresh {
                        self.pool.put_http2(&endpoint, sender.clone());
                    }
                    return Ok((endpoint, fresh));
                }
                Err(error) => error,
            };
            let next = self.endpoints.another(hash, &tried);
            let Some(next) = next.filter(|_| tried.len() < ENDPOINTS_TRIED_MAX) else {
                return Err(error);
            };
            tracing::debug!(%error, next = %next, "trying another endpoint");
            tried.push(next.clone());
            endpoint = next;
        }
    }

    fn kept(&self, endpoint: &SocketAddr) -> Option<Fresh> {
        if let Some(sender) = self.pool.http2(endpoint) {
            return Some(Fresh::Http2(sender));
        }
        self.pool.take_http1(endpoint).map(Fresh::Http1)
    }

    async fn send(
        &self,
        endpoint: &SocketAddr,
        connection: Fresh,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Lease>), Failed> {
        match connection {
            Fresh::Http1(mut sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: reset(endpoint, &error), request: Some(request) });
                }
                let sends_body = !request.body().is_empty();
                let uri = request.uri().path_and_query().cloned();
                *request.uri_mut() = uri.map_or_else(Uri::default, Uri::from);
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        let lease = Lease {
                            pool: Arc::clone(&self.pool),
                            endpoint: endpoint.clone(),
                            sender,
                            sends_body,
                        };
                        Ok((response, Some(lease)))
                    }
                    Err(mut failed) => Err(Failed {
                        request: failed.take_message(),
                        error: failure(endpoint, failed.error()),
                    }),
                }
            }
            Fresh::Http2(mut sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: reset(endpoint, &error), request: Some(request) });
                }
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                match sender.try_send_request(request).await {
                    Ok(response) => Ok((response, None)),
                    Err(mut failed) => Err(Failed {
                        request: failed.take_message(),
                        error: failure(endpoint, failed.error()),
                    }),
                }
            }
        }
    }

    /// The request with an absolute URI; HTTP/1 takes the path from it, HTTP/2 the authority too.
    fn request(&self, call: Call) -> Request<RequestBody> {
        let authority = match self.settings.host_header {
            HostHeader::Preserve => call.authority,
            HostHeader::Upstream => self.settings.authority.clone(),
        };
        let scheme = if self.settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        if let Ok(host) = http::HeaderValue::from_str(&authority) {
            request.headers_mut().insert(HOST, host);
        }
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(call.target.clone())
            .build();
        *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from(call.target));
        if let Some(sender) = call.interim {
            hyper::ext::on_informational(&mut request, move |response| {
                // A full queue drops the interim response; it is only a hint.
                let interim =
                    Interim { status: response.status(), headers: response.headers().clone() };
                let _ = sender.try_send(interim);
            });
        }
        request
    }
}

/// Ends when the response head is overdue: the time counts from the end of the request body.
async fn first_byte_limit(body_sent: Option<oneshot::Receiver<()>>, limit: Duration) {
    if let Some(sent) = body_sent {
        let _ = sent.await;
    }
    tokio::time::sleep(limit).await;
}

async fn total_limit(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Whether sending a request twice has the effect of sending it once (RFC 9110 §9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn reset(endpoint: &SocketAddr, error: &hyper::Error) -> UpstreamError {
    UpstreamError::Reset { endpoint: endpoint.to_string(), reason: cause(error) }
}

fn failure(endpoint: &SocketAddr, error: &hyper::Error) -> UpstreamError {
    if error.is_user() {
        return UpstreamError::RequestBody { reason: cause(error) };
    }
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        UpstreamError::Invalid { endpoint: endpoint.to_string(), reason: cause(error) }
    } else {
        reset(endpoint, error)
    }
}

fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
