//! The admin port: health, metrics, what is in force, explanations, purging.
//!
//! It has no authentication and belongs on loopback, where `kubectl port-forward` reaches it. A
//! purge must be sent as JSON, so that no web page can send one through a browser. A second port may
//! offer health and metrics to other machines.

mod body;
pub(crate) mod explain;
pub mod gauges;
mod guard;
mod pages;
mod purge;
mod redis;
pub mod xds;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_control::Controller;
use outrigger_control::xds::XdsStatus;
use outrigger_proxy::Shared;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::app::config::Config;
use crate::app::ready::{Readiness, Ready};
use crate::app::redis::Redis;

/// A request head must be complete within this.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the admin port can tell about.
pub struct Admin {
    /// The data path.
    pub shared: Arc<Shared>,
    /// The source of policy.
    pub controller: Arc<Controller>,
    /// Metrics.
    pub registry: Registry,
    /// Whether this instance wants traffic.
    pub ready: Arc<Readiness>,
    /// Redis, where it is used.
    pub redis: Option<Redis>,
    /// The connection to istiod, where policy comes from it.
    pub xds: Option<Arc<XdsStatus>>,
    /// The bootstrap in force.
    pub config: Config,
    /// When the process began to serve.
    pub began: Instant,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

pub(crate) type Page = Response<Full<Bytes>>;

/// Binds the admin port.
///
/// # Errors
/// The system's reason.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// What a port offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything. Not for others than the operator.
    All,
    /// Health, readiness and metrics.
    Telling,
}

/// Serves the admin port on the current runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn spawn(
    admin: Arc<Admin>,
    listener: std::net::TcpListener,
    extent: Extent,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(answer(&admin, extent, request).await) }
                });
                // A client that breaks off is the client's affair.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ_MAX)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

async fn answer(admin: &Admin, extent: Extent, request: Request<Incoming>) -> Page {
    let tells = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    if extent == Extent::Telling && !tells {
        let where_else = format!("not here; {} has it\n", admin.config.admin.address);
        return text(StatusCode::NOT_FOUND, where_else);
    }
    route(admin, request).await
}

async fn route(admin: &Admin, request: Request<Incoming>) -> Page {
    let path = request.uri().path().to_owned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path.as_str() {
        "/purge" if *request.method() == Method::POST => purge::post(admin, request).await,
        "/breaker" if *request.method() == Method::POST => guard::post(admin, request).await,
        "/purge" | "/breaker" => not_allowed("POST"),
        "/" | "/healthz" | "/readyz" | "/metrics" | "/config_dump" | "/explain" | "/stats"
        | "/guard" | "/purges"
            if !reads =>
        {
            not_allowed("GET, HEAD")
        }
        "/" => pages::index(),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match admin.ready.get() {
            Ready::Yes => text(StatusCode::OK, "ready\n"),
            Ready::Warming => text(StatusCode::SERVICE_UNAVAILABLE, "warming\n"),
            Ready::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => pages::metrics(admin),
        "/config_dump" => pages::config_dump(admin),
        "/explain" => explain::page(admin, request.uri().query().unwrap_or("")).await,
        "/stats" => pages::stats(admin).await,
        "/guard" => guard::page(admin),
        "/purges" => purge::list(admin),
        _ => text(StatusCode::NOT_FOUND, "nothing here; GET / lists the pages\n"),
    }
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Page {
    page(status, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Page {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    page(status, "application/json", Bytes::from(text))
}

pub(crate) fn page(status: StatusCode, kind: &'static str, body: Bytes) -> Page {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_allowed(allowed: &'static str) -> Page {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
