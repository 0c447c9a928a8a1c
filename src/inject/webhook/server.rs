//! The HTTPS server: admission reviews and health.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::review::{Answer, Outcome, answer};
use crate::config::Options;

/// Bytes of a review at most: the largest object of Kubernetes, and the object that it replaces.
const REVIEW_BYTES_MAX: usize = 3 << 20;
/// How long a client may take for a handshake, for a request's head, and for its body.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections at a time at most; an API server needs few.
const CONNECTIONS_MAX: usize = 512;

/// The answers to reviews and health checks, for all connections.
pub(super) struct Service {
    options: Options,
    strict: bool,
    draining: AtomicBool,
}

impl Service {
    pub fn new(options: Options, strict: bool) -> Self {
        Service { options, strict, draining: AtomicBool::new(false) }
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/readyz") if self.draining.load(Ordering::Relaxed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            (&Method::GET, "/readyz") => text(StatusCode::OK, "ok\n"),
            (&Method::POST, "/inject") => self.inject(request).await,
            (_, "/inject") => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                response
            }
            _ => text(StatusCode::NOT_FOUND, "there are /inject, /healthz and /readyz\n"),
        }
    }

    async fn inject(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = Limited::new(request.into_body(), REVIEW_BYTES_MAX).collect();
        let body = match tokio::time::timeout(CLIENT_TIME_MAX, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let reason = format!("a review may have {REVIEW_BYTES_MAX} bytes\n");
                return text(StatusCode::PAYLOAD_TOO_LARGE, reason);
            }
            Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
        };
        match answer(&body, &self.options, self.strict) {
            Ok(answer) => {
                log(&answer);
                let mut response = text(StatusCode::OK, answer.body.to_string());
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(reason, "a request that is no admission review");
                text(StatusCode::BAD_REQUEST, format!("{reason}\n"))
            }
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn log(answer: &Answer) {
    let Answer { pod, uid, dry_run, warnings, .. } = answer;
    match &answer.outcome {
        Outcome::Injected => tracing::info!(pod, uid, dry_run, ?warnings, "injected"),
        Outcome::Unchanged => tracing::info!(pod, uid, dry_run, "injected already"),
        Outcome::NotAsked => tracing::debug!(pod, uid, dry_run, "not asked for"),
        Outcome::Refused(refusal) => {
            tracing::warn!(pod, uid, dry_run, %refusal, "not injected");
        }
    }
}

/// How a server ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// How long connections are accepted after the signal: endpoints take a while to change.
    pub quiet: Duration,
    /// How long requests under way may take after that.
    pub drain: Duration,
}

/// Serves until `stop`, and ends without dropping a request.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
    stop: impl Future<Output = ()>,
    ending: Ending,
) {
    let graceful = GracefulShutdown::new();
    let accept = accept(&listener, &acceptor, &service, &graceful);
    let quiet = async {
        stop.await;
        tracing::info!("ending");
        service.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(ending.quiet).await;
    };
    tokio::select! {
        () = accept => {}
        () = quiet => {}
    }
    drop(listener);
    if tokio::time::timeout(ending.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were under way for too long; they are dropped");
    }
}

async fn accept(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    service: &Arc<Service>,
    graceful: &GracefulShutdown,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, service) = (acceptor.clone(), Arc::clone(service));
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, acceptor, service, watcher).await {
                        let error = error.to_string();
                        tracing::debug!(error, "a connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // No file descriptors, most likely: some come back when connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _ = stream.set_nodelay(true);
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let handshake = tokio::time::timeout(CLIENT_TIME_MAX, acceptor.accept(stream)).await;
    let stream = handshake.map_err(late).flatten()?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(CLIENT_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(256);
    let service = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.handle(request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    pin!(watcher.watch(connection.into_owned())).await
}
