//! One client connection: finds out which protocol it speaks and serves it until it ends.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_policy::Side;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::body::BodyError;
use crate::body::response::ResponseBody;
use crate::client::{ClientConnection, Http1};
use crate::mesh;
use crate::pipeline;
use crate::serve::io::{ClientIo, ClientStream};
use crate::serve::time_limits::Activity;
use crate::settings::ConnectionLimits;
use crate::state::Worker;

/// First bytes of an HTTP/2 connection with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Interval of the PING frames to an HTTP/2 client.
const H2_PING: Duration = Duration::from_secs(30);

/// Time limit for the first request of a connection that was accepted during the shutdown.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Phase of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// No shutdown: requests are served.
    Serving,
    /// Every HTTP/1 response announces the end of its connection.
    Closing,
    /// Connections end as soon as they are idle.
    Ending,
}

/// A client connection as it was accepted.
pub(crate) struct AcceptedConnection {
    /// Its socket, registered with the runtime of the worker.
    pub(crate) stream: ClientStream,
    /// Address of the client; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// Side of the pod that its listener serves; `None` for a direct listener.
    pub(crate) side: Option<Side>,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    client: AcceptedConnection,
    activity: Arc<Activity>,
    phase: watch::Receiver<Phase>,
) {
    let result = tokio::select! {
        result = protocol(&worker, client, &activity, phase) => result,
        () = activity.over_limit() => return,
    };
    activity.retire();
    if let Err(error) = result {
        worker.shared.metrics.protocol_errors.inc();
        tracing::debug!(%error, "client connection ended");
    }
}

async fn protocol(
    worker: &Arc<Worker>,
    client: AcceptedConnection,
    activity: &Arc<Activity>,
    phase: watch::Receiver<Phase>,
) -> Result<(), hyper::Error> {
    let AcceptedConnection { mut stream, ip, side } = client;
    let mut ending = phase.clone();
    let peeked = tokio::select! {
        peeked = peek(&mut stream, activity) => peeked,
        () = grace(&mut ending) => return Ok(()),
    };
    let Ok((ahead, http2)) = peeked else { return Ok(()) };
    if ahead.is_empty() {
        return Ok(());
    }
    let http1 = (!http2).then(Arc::<Http1>::default);
    let io = ClientIo::new(stream, ahead, http1.clone(), Arc::clone(activity));
    let limits = &worker.shared.settings.limits;
    let client = ClientConnection { ip, side, http1: http1.clone() };
    let service = Serving {
        worker: Arc::clone(worker),
        client,
        activity: Arc::clone(activity),
        phase: phase.clone(),
    };
    let Some(http1) = http1 else { return serve_http2(io, service, limits, phase).await };
    let served = serve_http1(io, service, limits, phase).await;
    if served.as_ref().is_err_and(hyper::Error::is_parse) {
        let status = http1.refused.load(Ordering::Relaxed);
        pipeline::record_unreadable(&worker.shared, if status == 0 { 400 } else { status });
    }
    served
}

/// Ends when a connection that has sent nothing is to be closed, in the shutdown.
async fn grace(phase: &mut watch::Receiver<Phase>) {
    // The sender lives as long as the process serves.
    let _ = phase.wait_for(|phase| *phase == Phase::Ending).await;
    tokio::time::sleep(FIRST_REQUEST).await;
}

/// Reads until it is clear which protocol the client speaks; yields the bytes read and whether it is
/// HTTP/2. No bytes mean that the client has closed.
async fn peek(stream: &mut ClientStream, activity: &Activity) -> io::Result<(Bytes, bool)> {
    let mut ahead = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut ahead).await? == 0 {
            return Ok((Bytes::new(), false));
        }
        activity.received();
        let known = ahead.len().min(PREFACE.len());
        if ahead[..known] != PREFACE[..known] {
            return Ok((ahead.freeze(), false));
        }
        if known == PREFACE.len() {
            return Ok((ahead.freeze(), true));
        }
    }
}

async fn serve_http1(
    io: ClientIo,
    service: Serving,
    limits: &ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), hyper::Error> {
    let activity = Arc::clone(&service.activity);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // `time_limits` keeps this limit: a timer of hyper costs something for each request.
        .header_read_timeout(None)
        .max_headers(limits.header_count_max)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        _ = phase.wait_for(|phase| *phase == Phase::Ending) => {}
    }
    // A connection that was only just accepted may have its first request on the way, whose
    // response will announce the end. A connection between requests is closed now; one with a
    // request ends after its response.
    if !activity.has_served() {
        tokio::select! {
            result = &mut connection => return result,
            () = tokio::time::sleep(FIRST_REQUEST) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http2(
    io: ClientIo,
    service: Serving,
    limits: &ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), hyper::Error> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_pending_accept_reset_streams(limits.h2_resets_max)
        .max_local_error_reset_streams(Some(limits.h2_resets_max))
        .max_header_list_size(limits.h2_header_list_bytes_max)
        .keep_alive_interval(H2_PING)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => {}
    }
    // GOAWAY announces the end to the client, so HTTP/2 needs no second phase.
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// The service of one connection.
struct Serving {
    worker: Arc<Worker>,
    client: ClientConnection,
    activity: Arc<Activity>,
    phase: watch::Receiver<Phase>,
}

impl Serving {
    /// Tells the stream what the request means for what is read and written next.
    fn note(&self, request: &Request<Incoming>, http1: &Http1) {
        // hyper notes a wish for an upgrade there, behind which need not come HTTP.
        if !request.body().is_end_stream() || !request.extensions().is_empty() {
            http1.unread.fetch_add(1, Ordering::Relaxed);
        }
        if request.version() == Version::HTTP_10 {
            http1.answers_old.store(self.activity.has_flushed(), Ordering::Relaxed);
        }
    }
}

/// Notes the end of a request when it is dropped.
struct InRequest(Arc<Activity>);

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A response body that keeps its request counted as running until it has been sent.
struct ServedBody {
    body: ResponseBody,
    _running: InRequest,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Service<Request<Incoming>> for Serving {
    type Response = Response<ServedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some(http1) = &self.client.http1 {
            self.note(&request, http1);
        }
        self.activity.begin();
        let running = InRequest(Arc::clone(&self.activity));
        let worker = Arc::clone(&self.worker);
        let client = self.client.clone();
        let ending = *self.phase.borrow() >= Phase::Closing;
        if mesh::is_health_check(client.side, &request) {
            let response = pipeline::health(!ending);
            let body = |body| ServedBody { body, _running: running };
            return Box::pin(std::future::ready(Ok(response.map(body))));
        }
        let closing = ending && client.http1.is_some();
        Box::pin(async move {
            let mut response = pipeline::handle(&worker, &client, request).await;
            if closing && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // Beside the `upgrade` that a 426 has there.
                response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| ServedBody { body, _running: running }))
        })
    }
}
