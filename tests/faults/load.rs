//! An open-loop load: requests go out by their own schedule, whatever becomes
//! of those before them, and latency counts from the scheduled moment. So a
//! proxy that stalls its clients does not lighten its own load.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::answer::{MADE, now_ms};
use crate::support::{Client, End, Response};

/// What has not answered by then has not answered.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Lifetime of a cacheable response, as its `Cache-Control` says.
const LIFETIME_MS: u128 = 1000;
/// A kept connection that has idled for longer is not used again: the proxy may be about to close it.
const IDLE_MAX: Duration = Duration::from_secs(1);
const HOT_KEYS: usize = 20;
const BODY_BYTES: usize = 1024;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One of a few URLs that may be stored.
    Hot,
    /// A URL whose response may not be stored.
    Uncacheable,
    /// A URL that may be stored, asked for the first time.
    New,
    /// A proxy's own health check.
    Probe,
}

/// What the load asks for, in turns.
const MIX: [Class; 10] = [
    Class::Hot,
    Class::Uncacheable,
    Class::Hot,
    Class::New,
    Class::Hot,
    Class::Hot,
    Class::Uncacheable,
    Class::Hot,
    Class::New,
    Class::Hot,
];

impl Class {
    fn prefix(self) -> &'static str {
        match self {
            Self::Hot => "/hot/",
            Self::Uncacheable => "/uncacheable/",
            Self::New => "/new/",
            Self::Probe => "/probe",
        }
    }

    /// The class of a path.
    pub fn of(path: &str) -> Self {
        let all = [Self::Hot, Self::Uncacheable, Self::New];
        all.into_iter().find(|class| path.starts_with(class.prefix())).unwrap_or(Self::Probe)
    }

    /// What the origin allows for it.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Hot | Self::New => "max-age=1, stale-while-revalidate=2, stale-if-error=60",
            Self::Uncacheable | Self::Probe => "no-store",
        }
    }
}

/// What a path's body is, so that no other is taken for it.
pub fn body_of(path: &str) -> String {
    format!("{path} ").repeat(BODY_BYTES / (path.len() + 1))
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with the right body, whole.
    Served {
        /// Whether it was past its lifetime.
        stale: bool,
    },
    /// Another status.
    Status(u16),
    /// A whole body that is not the right one.
    Wrong,
    /// The connection failed, or ended within the response.
    Broken,
    /// Nothing within the deadline.
    Late,
}

impl Outcome {
    /// Whether the client has what it asked for.
    pub fn served(self) -> bool {
        matches!(self, Self::Served { .. })
    }
}

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its kind.
    pub class: Class,
    /// When it was to be sent, since the load began.
    pub at: Duration,
    /// What became of it, and how long after the scheduled moment; `None` while that is open.
    pub done: Option<(Outcome, Duration)>,
}

struct LoadState {
    proxy: SocketAddr,
    asked: Mutex<Vec<Asked>>,
    idle: Mutex<Vec<(Client, Instant)>>,
    outstanding: AtomicUsize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A load that runs until [`stop`](Load::stop) or until dropped.
pub struct Load {
    shared: Arc<LoadState>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins at this moment, with so many requests a second.
    pub fn start(proxy: SocketAddr, begin: Instant, per_second: u32) -> Self {
        let shared = Arc::new(LoadState {
            proxy,
            asked: Mutex::default(),
            idle: Mutex::default(),
            outstanding: AtomicUsize::new(0),
        });
        let task = tokio::spawn(send(Arc::clone(&shared), begin, per_second));
        Self { shared, task }
    }

    /// What was sent so far.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }

    /// Sends no more, and waits for what is under way.
    pub async fn stop(self) -> Vec<Asked> {
        self.task.abort();
        let patience = Instant::now() + DEADLINE + Duration::from_secs(1);
        while self.shared.outstanding.load(Ordering::Relaxed) > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.asked()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(shared: Arc<LoadState>, begin: Instant, per_second: u32) {
    let pace = Duration::from_secs(1) / per_second;
    let mut hot = 0;
    for n in 0_u32.. {
        let at = pace * n;
        tokio::time::sleep_until((begin + at).into()).await;
        let class = MIX[n as usize % MIX.len()];
        let path = match class {
            Class::Hot => {
                hot += 1;
                format!("{}{}", class.prefix(), hot % HOT_KEYS)
            }
            _ => format!("{}{n}", class.prefix()),
        };
        let index = {
            let mut asked = locked(&shared.asked);
            asked.push(Asked { class, at, done: None });
            asked.len() - 1
        };
        // Bounded by the rate and the deadline.
        shared.outstanding.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let exchange = exchange(&shared, &path);
            let outcome = tokio::time::timeout_at((begin + at + DEADLINE).into(), exchange).await;
            let took = (begin + at).elapsed();
            locked(&shared.asked)[index].done = Some((outcome.unwrap_or(Outcome::Late), took));
            shared.outstanding.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn exchange(shared: &LoadState, path: &str) -> Outcome {
    let Some(mut client) = connection(shared).await else {
        return Outcome::Broken;
    };
    client.request("GET", path, &[]).await;
    let Ok(response) = client.try_response("GET").await else {
        return Outcome::Broken;
    };
    let framed = matches!(response.end, End::Length | End::Chunked);
    if framed && !response.head.lists("connection", "close") {
        locked(&shared.idle).push((client, Instant::now()));
    }
    judge(&response, path)
}

async fn connection(shared: &LoadState) -> Option<Client> {
    while let Some((client, since)) = { locked(&shared.idle).pop() } {
        if since.elapsed() < IDLE_MAX {
            return Some(client);
        }
    }
    Client::try_connect(shared.proxy).await.ok()
}

fn judge(response: &Response, path: &str) -> Outcome {
    if response.status != 200 {
        return Outcome::Status(response.status);
    }
    if response.end == End::Truncated {
        return Outcome::Broken;
    }
    let made = response.header(MADE).and_then(|made| made.parse::<u128>().ok());
    match made {
        Some(made) if response.body == body_of(path).as_bytes() => {
            Outcome::Served { stale: now_ms().saturating_sub(made) > LIFETIME_MS }
        }
        _ => Outcome::Wrong,
    }
}
