//! The idle connections of one worker, by endpoint. They are not shared between workers: each has a
//! runtime of its own, and an exchange over another worker's connection would wake a second thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};

use crate::body::request::RequestBody;
use crate::upstream::address::EndpointAddress;

/// How long a request body may still take after its response has ended, before the connection is
/// closed.
const BODY_REST: Duration = Duration::from_secs(5);

/// An HTTP/2 connection that no request has used for this long is closed.
const H2_IDLE: Duration = Duration::from_secs(300);

type Http1 = http1::SendRequest<RequestBody>;
type Http2 = http2::SendRequest<RequestBody>;

#[derive(Default)]
struct Idle {
    http1: HashMap<EndpointAddress, Vec<(Http1, Instant)>>,
    http2: HashMap<EndpointAddress, (Http2, Instant)>,
    count: usize,
}

/// The idle connections of one worker.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    idle_max: usize,
    idle_for: Duration,
}

impl Pool {
    pub(crate) fn new(idle_max: usize, idle_for: Duration) -> Self {
        Pool { idle: Mutex::default(), idle_max, idle_for }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes the connection used last, which is the least likely to have been closed by the other
    /// side.
    pub(crate) fn take_http1(&self, endpoint: &EndpointAddress) -> Option<Http1> {
        let mut idle = self.lock();
        let list = idle.http1.get_mut(endpoint)?;
        let (mut found, mut taken) = (None, 0);
        while let Some((sender, since)) = list.pop() {
            taken += 1;
            if since.elapsed() < self.idle_for && !sender.is_closed() {
                found = Some(sender);
                break;
            }
        }
        idle.count -= taken;
        found
    }

    /// Keeps a connection for a later request, unless as many are idle as may be.
    pub(crate) fn put_http1(&self, endpoint: &EndpointAddress, sender: Http1) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if idle.count >= self.idle_max {
            return;
        }
        idle.count += 1;
        match idle.http1.get_mut(endpoint) {
            Some(list) => list.push((sender, Instant::now())),
            None => {
                idle.http1.insert(endpoint.clone(), vec![(sender, Instant::now())]);
            }
        }
    }

    /// The HTTP/2 connection to an endpoint, which all requests share.
    pub(crate) fn http2(&self, endpoint: &EndpointAddress) -> Option<Http2> {
        let mut idle = self.lock();
        let (sender, used) = idle.http2.get_mut(endpoint)?;
        if sender.is_closed() {
            idle.http2.remove(endpoint);
            return None;
        }
        *used = Instant::now();
        Some(sender.clone())
    }

    /// Keeps an HTTP/2 connection, for all requests to share.
    pub(crate) fn put_http2(&self, endpoint: &EndpointAddress, sender: Http2) {
        self.lock().http2.insert(endpoint.clone(), (sender, Instant::now()));
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let mut idle = self.lock();
        let mut dropped = 0;
        for list in idle.http1.values_mut() {
            let before = list.len();
            list.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < self.idle_for);
            dropped += before - list.len();
        }
        idle.count -= dropped;
        // Endpoints come and go where requests name them.
        idle.http1.retain(|_, list| !list.is_empty());
        idle.http2.retain(|_, (sender, used)| !sender.is_closed() && used.elapsed() < H2_IDLE);
    }
}

/// Gives an HTTP/1 connection back to its pool when the response has been read to its end.
pub(crate) struct Loan {
    pub(crate) pool: Arc<Pool>,
    pub(crate) endpoint: EndpointAddress,
    pub(crate) sender: Http1,
    /// Whether the request had a body, which may still be on its way when the response ends.
    pub(crate) sends_body: bool,
}

impl Loan {
    pub(crate) fn give_back(mut self) {
        if !self.sends_body || self.sender.is_ready() {
            return self.pool.put_http1(&self.endpoint, self.sender);
        }
        tokio::spawn(async move {
            let ready = tokio::time::timeout(BODY_REST, self.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                self.pool.put_http1(&self.endpoint, self.sender);
            }
        });
    }
}
