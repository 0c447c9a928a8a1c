//! HTTP/2 with prior knowledge, both as a client and as an origin.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::gate::within;

/// A body that a test feeds frame by frame.
pub struct ChannelBody(mpsc::Receiver<Frame<Bytes>>);

impl ChannelBody {
    /// A body and the end that feeds it; it ends when the feeder is dropped.
    pub fn new() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (feed, frames) = mpsc::channel(16);
        (feed, Self(frames))
    }

    /// A body with this content, and trailer fields if there are any.
    pub fn of(data: impl AsRef<[u8]>, trailers: &[(&'static str, &'static str)]) -> Self {
        let (feed, body) = Self::new();
        if !data.as_ref().is_empty() {
            let _ = feed.try_send(Frame::data(Bytes::copy_from_slice(data.as_ref())));
        }
        if !trailers.is_empty() {
            let _ = feed.try_send(Frame::trailers(fields(trailers)));
        }
        body
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }

    // A request without content must be seen to end with its head.
    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

/// A header map of static fields.
pub fn fields(of: &[(&'static str, &'static str)]) -> HeaderMap {
    of.iter()
        .map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v)))
        .collect()
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct H2Response {
    /// Status and header fields.
    pub head: http::response::Parts,
    /// The content, all of it.
    pub body: Bytes,
    /// Trailer fields; none if there was no trailer section.
    pub trailers: HeaderMap,
}

impl H2Response {
    /// The status code as a number.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The first value of a header field that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// What Outrigger says it did.
    pub fn cache(&self) -> super::CacheStatus {
        let lines = self.head.headers.get_all("cache-status");
        super::CacheStatus::of(&lines.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>())
    }
}

/// A client connection; streams share it.
#[derive(Clone)]
pub struct H2Client {
    send: SendRequest<ChannelBody>,
    authority: String,
}

impl H2Client {
    /// Connects with prior knowledge.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.expect("a connection to the proxy")).await
    }

    /// Uses a connection that somebody else made.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (send, connection) = within("an h2 handshake", handshake).await.expect("h2");
        tokio::spawn(connection);
        Self { send, authority: "shop.test".to_owned() }
    }

    /// A request builder for a path on this connection.
    pub fn to(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.authority))
    }

    /// Sends a request and returns the response when its head is there.
    pub async fn send(&self, request: Request<ChannelBody>) -> hyper::Result<Response<Incoming>> {
        within("an h2 response head", self.send.clone().send_request(request)).await
    }

    /// A GET, read to its end.
    pub async fn get(&self, path: &str) -> H2Response {
        let request = self.to("GET", path).body(ChannelBody::of("", &[])).expect("a request");
        read(self.send(request).await.expect("a response")).await
    }
}

/// Reads a response to its end.
pub async fn read(response: Response<Incoming>) -> H2Response {
    let (head, body) = response.into_parts();
    let whole = within("the end of an h2 body", body.collect()).await.expect("a whole body");
    let trailers = whole.trailers().cloned().unwrap_or_default();
    H2Response { head, body: whole.to_bytes(), trailers }
}

/// Waits for body bytes until these are there; the rest may still come.
pub async fn read_until(body: &mut Incoming, end: &[u8]) -> Bytes {
    let mut seen = BytesMut::new();
    while !seen.ends_with(end) {
        let frame = within("an h2 frame", body.frame()).await.expect("more frames");
        if let Ok(data) = frame.expect("a good frame").into_data() {
            seen.extend_from_slice(&data);
        }
    }
    seen.freeze()
}

/// A request as an h2 origin saw it: read to its end.
#[derive(Clone, Debug)]
pub struct H2Seen {
    /// Method, target and fields.
    pub method: String,
    /// The target: path and query.
    pub path: String,
    /// Header fields, without pseudo-header fields.
    pub headers: HeaderMap,
    /// The content, all of it.
    pub body: Bytes,
    /// Trailer fields; none if there was no trailer section.
    pub trailers: HeaderMap,
}

/// An origin that speaks HTTP/2 with prior knowledge and answers by a closure.
pub struct H2Origin {
    /// The address at which it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<H2Seen>>>,
    task: JoinHandle<()>,
}

impl H2Origin {
    /// Starts on a free port; every request is read to its end first.
    pub async fn start(
        answer: impl Fn(&H2Seen) -> Response<ChannelBody> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the origin binds");
        let addr = listener.local_addr().expect("a bound address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    respond(request, Arc::clone(&log), Arc::clone(&answer))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { addr, seen, task }
    }

    /// The URL to give to `--upstream`.
    pub fn url(&self) -> String {
        format!("h2c://{}", self.addr)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<H2Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond<F>(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<H2Seen>>>,
    answer: Arc<F>,
) -> hyper::Result<Response<ChannelBody>>
where
    F: Fn(&H2Seen) -> Response<ChannelBody>,
{
    let (head, body) = request.into_parts();
    let whole = body.collect().await?;
    let seen = H2Seen {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: head.headers,
        trailers: whole.trailers().cloned().unwrap_or_default(),
        body: whole.to_bytes(),
    };
    let response = answer(&seen);
    log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    Ok(response)
}
