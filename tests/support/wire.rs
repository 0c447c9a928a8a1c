//! HTTP/1.1 on bytes: a buffered connection that reads heads, counted bodies
//! and chunked bodies, and keeps what it has read exactly as it came.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A start line and its header lines.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The request line or status line.
    pub start: String,
    /// Every header line in the order it came, names as sent.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Parses the bytes up to and including the empty line.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        Self { start, headers }
    }

    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of a field, one per line.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a comma-separated field has this member, whatever its case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        let members = self.all(name);
        members.iter().flat_map(|v| v.split(',')).any(|m| m.trim().eq_ignore_ascii_case(member))
    }

    /// The nth word of the start line.
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }
}

/// The kinds of connection, told apart only where it matters.
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A Unix stream connection.
    Unix(UnixStream),
    /// TLS on a TCP connection.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// A socket with the bytes read from it and not yet used.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Read, not yet consumed.
    pub buf: Vec<u8>,
}

/// A body read to its end: content, trailer fields, and whether it was whole.
pub type Chunked = (Vec<u8>, Vec<(String, String)>, bool);

impl Wire {
    /// Wraps a TCP connection.
    pub fn tcp(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { socket: Socket::Tcp(stream), buf: Vec::new() }
    }

    /// Wraps a Unix connection.
    pub fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), buf: Vec::new() }
    }

    /// Wraps a TLS connection.
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { socket: Socket::Tls(Box::new(stream)), buf: Vec::new() }
    }

    /// Sends bytes as they are. TLS may hold back what it has been given until it is flushed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Sends some of the bytes: returns how many the peer had room for.
    pub async fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes).await
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Closes so that the peer sees a reset instead of an orderly end.
    pub fn reset(self) {
        if let Socket::Tcp(stream) = &self.socket {
            let _ = stream.set_zero_linger();
        }
    }

    /// Reads more into the buffer; 0 is the end.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.socket.read_buf(&mut self.buf).await
    }

    /// Takes bytes up to and including `end`, or `None` at the end of input.
    pub async fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = find(&self.buf, end) {
                return Ok(Some(self.buf.drain(..at + end.len()).collect()));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes a head, or `None` when the peer closed before it was complete.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        Ok(self.until(b"\r\n\r\n").await?.map(|bytes| Head::parse(&bytes)))
    }

    /// Takes up to `n` bytes, fewer only when the peer closed or reset.
    pub async fn counted(&mut self, n: usize) -> Vec<u8> {
        while self.buf.len() < n {
            if !matches!(self.fill().await, Ok(read) if read > 0) {
                break;
            }
        }
        let n = n.min(self.buf.len());
        self.buf.drain(..n).collect()
    }

    /// Takes everything until the peer closes; false when it ended in a reset.
    pub async fn rest_until_close(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.fill().await {
                Ok(0) => return (std::mem::take(&mut self.buf), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.buf), false),
            }
        }
    }

    /// Takes a chunked body with its trailer section.
    pub async fn chunked(&mut self) -> Chunked {
        let mut body = Vec::new();
        loop {
            let Ok(Some(line)) = self.until(b"\r\n").await else {
                return (body, Vec::new(), false);
            };
            let line = String::from_utf8_lossy(&line);
            let size = line.trim().split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(size, 16) else {
                return (body, Vec::new(), false);
            };
            if size == 0 {
                break;
            }
            let mut data = self.counted(size + 2).await;
            let whole = data.len() == size + 2;
            data.truncate(size);
            body.extend(data);
            if !whole {
                return (body, Vec::new(), false);
            }
        }
        let mut trailers = Vec::new();
        loop {
            match self.until(b"\r\n").await {
                Ok(Some(line)) if line == b"\r\n" => return (body, trailers, true),
                Ok(Some(line)) => {
                    trailers.extend(Head::parse(&[b"\r\n", &line[..]].concat()).headers)
                }
                _ => return (body, trailers, false),
            }
        }
    }
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
