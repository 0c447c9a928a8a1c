//! The stream below a client connection: gives hyper the bytes that were read ahead, writes queued
//! 1xx responses when it is flushed (see `interim`), and notes activity for the time limits. On
//! HTTP/1.1 it also mends request lines, and says of refusals what hyper leaves out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::client::Http1;
use crate::pipeline;
use crate::serve::request_line::RequestLine;
use crate::serve::time_limits::Activity;

/// The version that we speak, as a status line begins with it.
const OUR_VERSION: &[u8] = b"HTTP/1.1";

/// The socket of a client connection.
#[derive(Debug)]
pub(crate) enum ClientStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl ClientStream {
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The stream that hyper reads from and writes to.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: ClientStream,
    ahead: Bytes,
    /// `None` on an HTTP/2 connection.
    http1: Option<Http1Stream>,
    activity: Arc<Activity>,
}

/// What HTTP/1.1 needs of its stream.
#[derive(Debug)]
struct Http1Stream {
    shared: Arc<Http1>,
    line: RequestLine,
    /// The count of requests before the one whose head is being read; `None` before the first.
    at: Option<u32>,
    /// What is written in place of hyper's own refusal.
    refusal: Option<Bytes>,
}

impl ClientIo {
    /// `ahead` are the bytes that were read already; hyper gets them first.
    pub(crate) fn new(
        stream: ClientStream,
        ahead: Bytes,
        http1: Option<Arc<Http1>>,
        activity: Arc<Activity>,
    ) -> Self {
        let line = RequestLine::new();
        let http1 = http1.map(|shared| Http1Stream { shared, line, at: None, refusal: None });
        let mut io = ClientIo { stream, ahead: Bytes::new(), http1, activity };
        io.ahead = io.head(&ahead).map_or(ahead, Bytes::from);
        io
    }

    /// What hyper gets in place of bytes that were read, if that is not the same.
    fn head(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let http1 = self.http1.as_mut()?;
        let is_head =
            self.activity.is_between_requests() && http1.shared.unread.load(Ordering::Relaxed) == 0;
        if !is_head {
            return None;
        }
        let at = Some(self.activity.begun());
        let begins = http1.at != at;
        http1.at = at;
        http1.line.read(bytes, begins)
    }

    /// Whether hyper writes on its own account: it refuses a head that it cannot read, by a response
    /// that says nothing.
    fn is_refusal(&self, bytes: &[u8]) -> bool {
        self.activity.has_flushed()
            && self.activity.is_between_requests()
            && bytes.starts_with(b"HTTP/1.1 4")
            && self.http1.is_some()
    }

    /// Writes our own refusal in place of hyper's, which is taken as written.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, hypers: &[u8]) -> Poll<io::Result<()>> {
        let Some(http1) = &mut self.http1 else { return Poll::Ready(Ok(())) };
        let refusal = http1.refusal.get_or_insert_with(|| {
            let (status, response) = pipeline::unreadable(hypers);
            http1.shared.refused.store(status, Ordering::Relaxed);
            response
        });
        while !refusal.is_empty() {
            let written = ready!(self.stream.poll_write(cx, refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// The version in a response to HTTP/1.0: our own (RFC 9110 §6.2), where hyper writes the
    /// client's. Both have the same length.
    fn begins_in_old_version(&self, bytes: &[u8]) -> bool {
        let Some(http1) = &self.http1 else { return false };
        http1.shared.answers_old.load(Ordering::Relaxed) && bytes.starts_with(b"HTTP/1.0 ")
    }

    fn note(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(_)) => {
                self.activity.written(true);
                // Only the beginning of a response is a version.
                if let Some(http1) = &self.http1
                    && http1.shared.answers_old.load(Ordering::Relaxed)
                {
                    http1.shared.answers_old.store(false, Ordering::Relaxed);
                }
            }
            Poll::Pending => self.activity.written(false),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            self.activity.received();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.received();
            if let Some(head) = self.head(&buf.filled()[before..]) {
                buf.set_filled(before);
                let now = head.len().min(buf.remaining());
                buf.put_slice(&head[..now]);
                self.ahead = Bytes::from(head).slice(now..);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal(buf) {
            ready!(self.poll_refuse(cx, buf))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let old = self.begins_in_old_version(buf);
        let polled = self.stream.poll_write(cx, if old { OUR_VERSION } else { buf });
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.first().map_or(&[][..], |buf| buf);
        if self.is_refusal(first) || self.begins_in_old_version(first) {
            return self.poll_write(cx, first);
        }
        let polled = self.stream.poll_write_vectored(cx, bufs);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let stream = &mut this.stream;
        if let Some(http1) = &this.http1 {
            let interim = &http1.shared.interim;
            ready!(interim.poll_write_all(cx, |cx, bytes| stream.poll_write(cx, bytes)))?;
        }
        ready!(stream.poll_flush(cx))?;
        this.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}
