//! A raw HTTP/1.1 client: the test writes the bytes and sees every byte that
//! comes back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::gate::within;
use super::response::{End, Response};
use super::wire::{Head, Wire};

/// Where a client connects.
#[derive(Clone, Debug)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

/// A connection to a server, over TCP, a Unix socket or TLS.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects, or fails the test.
    pub async fn connect(target: impl Into<Target>) -> Self {
        Self::try_connect(target).await.expect("a connection to the proxy")
    }

    /// Connects, or says why not.
    pub async fn try_connect(target: impl Into<Target>) -> io::Result<Self> {
        let wire = match target.into() {
            Target::Tcp(addr) => Wire::tcp(TcpStream::connect(addr).await?),
            Target::Unix(path) => Wire::unix(UnixStream::connect(path).await?),
        };
        Ok(Self { wire })
    }

    /// Uses a connection that somebody else made, perhaps in a network namespace.
    pub fn over(stream: TcpStream) -> Self {
        Self { wire: Wire::tcp(stream) }
    }

    /// The same with TLS.
    pub fn over_tls(stream: TlsStream<TcpStream>) -> Self {
        Self { wire: Wire::tls(stream) }
    }

    /// Sends bytes; an error is not a failure, because the peer may have closed
    /// on purpose: what it answered tells.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.wire.send(bytes.as_ref()).await;
        self
    }

    /// Sends a request without a body.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> &mut Self {
        self.send(head_of(method, path, headers)).await
    }

    /// Sends a GET and reads its response.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers).await;
        self.response("GET").await
    }

    /// Reads the response to a request with this method.
    pub async fn response(&mut self, method: &str) -> Response {
        within("a response", self.try_response(method)).await.expect("a response")
    }

    /// Reads a response; an error when the connection ended before its head.
    pub async fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let (interim, head) = self.heads().await?;
        let status: u16 = head.word(1).parse().map_err(|_| odd(&head.start))?;
        let (body, trailers, end) = self.rest(method, status, &head).await;
        Ok(Response { interim, status, head, body, trailers, end })
    }

    /// Reads the heads up to the final one: for tests that look at a body while
    /// it comes.
    pub async fn final_head(&mut self) -> Head {
        within("a response head", self.heads()).await.expect("a response head").1
    }

    /// Reads one head, interim or final.
    pub async fn next_head(&mut self) -> Head {
        let head = within("a head", self.wire.head()).await;
        head.expect("a readable head").expect("a head before the connection closed")
    }

    /// Reads raw bytes up to and including these.
    pub async fn until(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
        let read = within(&format!("the bytes {text:?}"), self.wire.until(bytes.as_ref())).await;
        read.expect("readable").unwrap_or_else(|| panic!("closed before {text:?}"))
    }

    /// Reads a chunked body to its end.
    pub async fn chunked(&mut self) -> super::wire::Chunked {
        within("the end of a chunked body", self.wire.chunked()).await
    }

    /// Reads exactly this many raw bytes, or fewer if the peer closes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        within("counted bytes", self.wire.counted(n)).await
    }

    /// Reads until the peer closes: what came, and whether the end was orderly.
    pub async fn rest_until_close(&mut self) -> (Vec<u8>, bool) {
        within("the peer closes", self.wire.rest_until_close()).await
    }

    /// Whether unread bytes are in the buffer already.
    pub fn buffered(&self) -> &[u8] {
        &self.wire.buf
    }

    /// Closes the sending side only.
    pub async fn finish(&mut self) {
        self.wire.finish().await;
    }

    /// Leaves with a reset.
    pub fn reset(self) {
        self.wire.reset();
    }

    async fn heads(&mut self) -> io::Result<(Vec<Head>, Head)> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let word = head.word(1);
            if word.starts_with('1') && word != "101" {
                interim.push(head);
            } else {
                return Ok((interim, head));
            }
        }
    }

    async fn rest(
        &mut self,
        method: &str,
        status: u16,
        head: &Head,
    ) -> (Vec<u8>, Vec<(String, String)>, End) {
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            return (Vec::new(), Vec::new(), End::Empty);
        }
        if head.lists("transfer-encoding", "chunked") {
            let (body, trailers, whole) = self.wire.chunked().await;
            let end = if whole { End::Chunked } else { End::Truncated };
            return (body, trailers, end);
        }
        if let Some(length) = head.get("content-length").and_then(|n| n.parse::<usize>().ok()) {
            let body = self.wire.counted(length).await;
            let end = if body.len() == length { End::Length } else { End::Truncated };
            return (body, Vec::new(), end);
        }
        let (body, orderly) = self.wire.rest_until_close().await;
        (body, Vec::new(), if orderly { End::Close } else { End::Truncated })
    }
}

/// A request without a body on a connection of its own.
pub async fn fetch(
    target: impl Into<Target>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let mut client = Client::connect(target).await;
    client.request(method, path, headers).await;
    client.response(method).await
}

/// A GET on a connection of its own.
pub async fn get(target: impl Into<Target>, path: &str) -> Response {
    fetch(target, "GET", path, &[]).await
}

fn head_of(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: shop.test\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

fn odd(start: &str) -> io::Error {
    io::Error::other(format!("not a status line: {start:?}"))
}
