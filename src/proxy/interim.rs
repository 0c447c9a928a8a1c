//! Interim responses (1xx) on their way to an HTTP/1.1 client.
//!
//! hyper's server has no call that sends a 1xx. It does poll its stream for flush, in the task of
//! the connection, while the service is pending and hyper's own buffer is empty. A queued 1xx is
//! written then, before the final response; the sender waits until it has been written. The stream
//! side of this is `serve::io`.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;

use crate::mesh;
use crate::upstream::Interim;

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    sender: Option<Waker>,
}

/// The 1xx responses of one connection that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct InterimQueue(Mutex<Pending>);

impl InterimQueue {
    /// Queues a 1xx response and waits until it has been written.
    ///
    /// 100 and 101 are ignored: hyper itself answers `Expect: 100-continue`, and 101 is a final
    /// response.
    pub(crate) async fn send(&self, interim: &Interim) {
        if matches!(interim.status.as_u16(), 100 | 101) {
            return;
        }
        self.0.lock().bytes.extend_from_slice(&head_of(interim));
        std::future::poll_fn(|cx| {
            let mut pending = self.0.lock();
            if pending.bytes.is_empty() {
                return Poll::Ready(());
            }
            pending.sender = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Writes what is queued, by `write`, and wakes the sender when all is written.
    pub(crate) fn poll_write_all(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut pending = self.0.lock();
        while !pending.bytes.is_empty() {
            let written = ready!(write(cx, &pending.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            pending.bytes.drain(..written);
        }
        let sender = pending.sender.take();
        drop(pending);
        if let Some(waker) = sender {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// The head as HTTP/1.1 writes it (RFC 9112 §4), without hop-by-hop fields.
fn head_of(interim: &Interim) -> Vec<u8> {
    let mut headers = interim.headers.clone();
    outrigger_semantics::fields::strip_hop_by_hop(&mut headers);
    // It has no content, and so no length of it (RFC 9110 §8.6).
    headers.remove(http::header::CONTENT_LENGTH);
    outrigger_semantics::fields::remove_all(&mut headers, mesh::is_ours);
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
