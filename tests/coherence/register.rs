//! The service behind the pods: a register per path.
//!
//! `GET` answers `<version> <value>` and lets it be cached for a minute; `PUT` sets the value to
//! its body. Both take a little time before and after they touch the state, so that fetches race
//! with writes. The origin gives out versions: they rise by one with every change of a path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::rng::Rng;

/// What a path holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How often it was changed.
    pub version: u64,
    /// What was written last.
    pub value: u64,
}

impl Held {
    /// Reads the body of an answer.
    pub fn parse(body: &str) -> Option<Self> {
        let (version, value) = body.split_once(' ')?;
        Some(Self { version: version.parse().ok()?, value: value.parse().ok()? })
    }
}

#[derive(Default)]
struct State {
    held: Mutex<HashMap<String, Held>>,
    asked: AtomicU64,
}

impl State {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, path: &str) -> Held {
        self.held().get(path).copied().unwrap_or_default()
    }

    fn write(&self, path: &str, value: u64) -> Held {
        let mut all = self.held();
        let held = all.entry(path.to_owned()).or_default();
        *held = Held { version: held.version + 1, value };
        *held
    }
}

/// The running service; it stops when dropped.
pub struct Register {
    addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Register {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the register binds");
        let addr = listener.local_addr().expect("a bound address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = http1::Builder::new();
                connections.spawn(async move {
                    // A pod that is killed breaks its connections.
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, state, task }
    }

    /// The URL to give to `--upstream`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes a path behind the back of the pods: its new version.
    pub fn change(&self, path: &str) -> u64 {
        self.state.write(path, 0).version
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let nth = state.asked.fetch_add(1, Ordering::Relaxed);
    // In a task of its own: what arrived takes place, even if who asked goes away meanwhile.
    let work = tokio::spawn(async move {
        let mut rng = Rng::of(nth + 1_000_000);
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let body = body.collect().await.map(|body| body.to_bytes());
        pause(&mut rng).await;
        let response = match (&head.method, body.ok().as_deref().map(number)) {
            (&Method::GET, _) => reply(&path, state.read(&path)),
            (&Method::PUT, Some(Some(value))) => {
                let held = state.write(&path, value);
                Response::new(Full::from(format!("{} {}", held.version, held.value)))
            }
            _ => {
                let mut odd = Response::new(Full::default());
                *odd.status_mut() = StatusCode::BAD_REQUEST;
                odd
            }
        };
        pause(&mut rng).await;
        response
    });
    Ok(work.await.expect("the register does not panic"))
}

fn reply(path: &str, held: Held) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{} {}", held.version, held.value)));
    let mut set = |name: &'static str, value: String| {
        let value = value.parse().expect("a field value");
        response.headers_mut().insert(name, value);
    };
    set("cache-control", "max-age=60".to_owned());
    set("cache-tag", tags(path));
    response
}

/// `/e/g1/k7` is tagged `g1` and `k7`.
fn tags(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| part.len() > 1).collect();
    parts.join(",")
}

fn number(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.parse().ok()
}

/// Mostly short, sometimes long enough for a whole purge to pass.
async fn pause(rng: &mut Rng) {
    let ms = if rng.percent(10) { 10 + rng.below(30) } else { rng.below(4) };
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms as u64)).await;
    }
}
