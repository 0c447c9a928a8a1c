//! A scriptable origin on loopback.
//!
//! A route is a closure from the request to a [`Script`]; the origin counts and
//! keeps every request it saw, and can tell when a peer went away mid-answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::gate::within;
use super::origin_conn::serve;
use super::script::{Reply, Script};
use super::wire::{Head, Wire};

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Request line and header lines as they came.
    pub head: Head,
    /// How many requests for this path came so far, this one included.
    pub nth: usize,
    /// Which connection it came on.
    pub connection: usize,
    /// The body; empty when the route answers before reading it.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Request {
    /// The method of the request line.
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    /// The request target as sent.
    pub fn target(&self) -> &str {
        self.head.word(1)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The first value of a header field, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

type Handler = Arc<dyn Fn(&Request) -> Script + Send + Sync>;

#[derive(Clone)]
pub(super) struct Route {
    pub handler: Handler,
    /// Answers when the head is there, without waiting for the body.
    pub early: bool,
}

/// What the connections share with the test.
pub(super) struct OriginState {
    routes: Mutex<HashMap<String, Route>>,
    seen: Mutex<Vec<Request>>,
    gone: Mutex<HashMap<String, usize>>,
    pub flooded: AtomicU64,
    pub connections: AtomicUsize,
    changed: watch::Sender<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OriginState {
    fn new() -> Self {
        Self {
            routes: Mutex::default(),
            seen: Mutex::default(),
            gone: Mutex::default(),
            flooded: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            changed: watch::Sender::new(0),
        }
    }

    /// Notes a request when its head has arrived: its index in the log.
    pub fn record(&self, mut request: Request) -> (usize, Request) {
        let mut seen = locked(&self.seen);
        request.nth = 1 + seen.iter().filter(|r| r.path() == request.path()).count();
        seen.push(request.clone());
        let index = seen.len() - 1;
        drop(seen);
        self.changed.send_modify(|n| *n += 1);
        (index, request)
    }

    /// Adds what came after the head.
    pub fn complete(&self, index: usize, body: &[u8], trailers: &[(String, String)]) {
        if let Some(request) = locked(&self.seen).get_mut(index) {
            request.body = body.to_vec();
            request.trailers = trailers.to_vec();
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// Notes that the peer left in the middle of an answer.
    pub fn left(&self, path: &str) {
        *locked(&self.gone).entry(path.to_owned()).or_default() += 1;
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn route(&self, path: &str) -> Option<Route> {
        let routes = locked(&self.routes);
        routes.get(path).or_else(|| routes.get("*")).cloned()
    }
}

/// The origin; it stops when dropped.
pub struct Origin {
    shared: Arc<OriginState>,
    /// Where it listens; port 0 for a Unix socket.
    pub addr: SocketAddr,
    url: String,
    task: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts on a given address, for an origin that comes back.
    pub async fn start_at(addr: SocketAddr) -> Self {
        Self::serve_on(std::net::TcpListener::bind(addr).expect("the origin binds")).await
    }

    /// Starts on a socket that somebody else made, perhaps in a network namespace.
    pub async fn serve_on(listener: std::net::TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener for tokio");
        let listener = TcpListener::from_std(listener).expect("a listener for tokio");
        let addr = listener.local_addr().expect("a bound address");
        let shared = Arc::new(OriginState::new());
        let state = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Wire::tcp(stream), Arc::clone(&state)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { shared, addr, url: format!("http://{addr}"), task: Some(task) }
    }

    /// Starts on a Unix socket.
    pub async fn start_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the origin binds its socket");
        let shared = Arc::new(OriginState::new());
        let state = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Wire::unix(stream), Arc::clone(&state)));
            }
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { shared, addr, url: format!("unix:{}", path.display()), task: Some(task) }
    }

    /// The URL to give to `--upstream`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Answers a path (or `*`) by a closure, after the request body was read.
    pub fn on<S: Into<Script>>(
        &self,
        path: &str,
        handler: impl Fn(&Request) -> S + Send + Sync + 'static,
    ) -> &Self {
        self.add(path, false, Arc::new(move |request| handler(request).into()))
    }

    /// Answers a path as soon as the request head is there.
    pub fn on_head<S: Into<Script>>(
        &self,
        path: &str,
        handler: impl Fn(&Request) -> S + Send + Sync + 'static,
    ) -> &Self {
        self.add(path, true, Arc::new(move |request| handler(request).into()))
    }

    /// Answers a path the same way every time.
    pub fn always(&self, path: &str, script: impl Into<Script>) -> &Self {
        let script = script.into();
        self.on(path, move |_| script.clone())
    }

    fn add(&self, path: &str, early: bool, handler: Handler) -> &Self {
        locked(&self.shared.routes).insert(path.to_owned(), Route { handler, early });
        self
    }

    /// How many requests came for a path.
    pub fn hits(&self, path: &str) -> usize {
        locked(&self.shared.seen).iter().filter(|r| r.path() == path).count()
    }

    /// Every request for a path, in order of arrival.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        locked(&self.shared.seen).iter().filter(|r| r.path() == path).cloned().collect()
    }

    /// The last request for a path.
    pub fn last(&self, path: &str) -> Request {
        self.requests(path).pop().unwrap_or_else(|| panic!("the origin never saw {path}"))
    }

    /// Every request, whatever its path.
    pub fn all_requests(&self) -> Vec<Request> {
        locked(&self.shared.seen).clone()
    }

    /// How many bytes its floods have sent.
    pub fn flooded(&self) -> u64 {
        self.shared.flooded.load(Ordering::Relaxed)
    }

    /// Waits until `n` requests for a path have arrived.
    pub async fn arrived(&self, path: &str, n: usize) {
        let what = format!("{n} request(s) for {path} at the origin");
        self.until(&what, || self.hits(path) >= n).await;
    }

    /// Waits until a peer went away in the middle of an answer for a path.
    pub async fn peer_left(&self, path: &str) {
        let left = || locked(&self.shared.gone).get(path).is_some_and(|n| *n > 0);
        self.until(&format!("the peer of {path} leaves"), left).await;
    }

    /// Waits until the noted requests satisfy a condition.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let mut changed = self.shared.changed.subscribe();
        within(what, async {
            while !holds() {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = changed.changed().await;
            }
        })
        .await;
    }

    /// Stops listening and drops every connection; later connects are refused.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Ends with a cancellation, which is what was asked for.
            let _ = task.await;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The answer when no route matches: visible, and never stored.
pub(super) fn no_route(request: &Request) -> Script {
    let body = format!("the origin has no route for {}", request.path());
    Reply::new(404).header("Cache-Control", "no-store").body(body).into()
}
