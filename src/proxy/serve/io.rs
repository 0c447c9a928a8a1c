//! The stream below a client connection: bytes read ahead, 1xx responses, and activity.
//!
//! hyper's server has no call to send a 1xx. It does poll this object for flush, in the task of
//! the connection, while the service is waiting and its own buffer is empty; a 1xx that is queued
//! here goes out then, before the final response. The service waits until it has gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::serve::watch::Activity;
use crate::upstream::Interim;

/// A client's stream.
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

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    sender: Option<Waker>,
}

/// 1xx responses waiting to be written.
#[derive(Debug, Default)]
pub(crate) struct InterimQueue(Mutex<Queue>);

impl InterimQueue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Queues a 1xx and waits until it is on its way.
    pub(crate) async fn send(&self, interim: &Interim) {
        // 100 is hyper's own affair, 101 is no interim response.
        if matches!(interim.status.as_u16(), 100 | 101) {
            return;
        }
        self.lock().bytes.extend_from_slice(&head_of(interim));
        std::future::poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.bytes.is_empty() {
                return Poll::Ready(());
            }
            queue.sender = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn head_of(interim: &Interim) -> Vec<u8> {
    let mut headers = interim.headers.clone();
    outrigger_semantics::fields::strip_hop_by_hop(&mut headers);
    let reason = interim.status.canonical_reason().unwrap_or("");
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", interim.status.as_u16()).into_bytes();
    for (name, value) in &headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// What hyper reads from and writes to.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: ClientStream,
    ahead: Bytes,
    interim: Arc<InterimQueue>,
    activity: Arc<Activity>,
}

impl ClientIo {
    /// `ahead` are bytes that were read already.
    pub(crate) fn new(
        stream: ClientStream,
        ahead: Bytes,
        interim: Arc<InterimQueue>,
        activity: Arc<Activity>,
    ) -> Self {
        ClientIo { stream, ahead, interim, activity }
    }

    fn note(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(_)) => self.activity.written(true),
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
        let polled = self.stream.poll_write(cx, buf);
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_write_vectored(cx, bufs);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let interim = Arc::clone(&self.interim);
        let mut queue = interim.lock();
        while !queue.bytes.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &queue.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            queue.bytes.drain(..written);
        }
        let sender = queue.sender.take();
        drop(queue);
        if let Some(waker) = sender {
            waker.wake();
        }
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}
