//! A steady load: a few clients that keep their connections and ask for a mix
//! of paths, and what became of their requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::pods::is_redis_hit;
use crate::support::{Client, Origin, PATIENCE, Proxy, Reply, eventually};

const CLIENTS: usize = 8;
const PATHS: usize = 50;
/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(8);

/// What a path's body is, so that no other is taken for it.
fn body_of(path: &str) -> String {
    format!("{path} ").repeat(2048 / (path.len() + 1))
}

/// An origin for the load: everything lives for two seconds.
pub async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=2", body_of(r.path())));
    origin
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicUsize,
    redis_hits: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
    stop: AtomicBool,
}

/// A load that runs until [`end`](Load::end).
pub struct Load {
    tally: Arc<Tally>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts the clients; they take turns at the pods.
    pub fn start(pods: &[&Proxy]) -> Self {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        for n in 0..CLIENTS {
            let pod = pods[n % pods.len()].addr;
            clients.spawn(ask(pod, n, Arc::clone(&tally)));
        }
        Self { tally, clients }
    }

    /// Lets it run for a time: the slowest response in it.
    pub async fn run(&self, time: Duration) -> Duration {
        *self.slowest() = Duration::ZERO;
        tokio::time::sleep(time).await;
        *self.slowest()
    }

    /// Waits until responses come from Redis (again).
    pub async fn sees_redis_hits(&self) {
        let before = self.tally.redis_hits.load(Ordering::Relaxed);
        eventually("hits from Redis under load", || async {
            (self.tally.redis_hits.load(Ordering::Relaxed) >= before + 20).then_some(())
        })
        .await;
    }

    /// How many responses came from Redis so far.
    pub fn redis_hits(&self) -> usize {
        self.tally.redis_hits.load(Ordering::Relaxed)
    }

    /// Panics if any response was not the right one.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let wrong = self.tally.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.tally.answered.load(Ordering::Relaxed);
        assert!(wrong.is_empty(), "{} of {answered}: {:#?}", wrong.len(), wrong.first());
    }

    /// Ends the clients; panics if any response was not the right one.
    pub async fn end(mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.expect("a client ends in order");
        }
        self.assert_flawless();
        let answered = self.tally.answered.load(Ordering::Relaxed);
        assert!(answered > 100, "that was no load: {answered}");
    }

    fn slowest(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.tally.slowest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(pod: SocketAddr, n: usize, tally: Arc<Tally>) {
    let mut client = Client::connect(pod).await;
    let mut turn = n * 7;
    while !tally.stop.load(Ordering::Relaxed) {
        turn += 1 + n % 3;
        let path = format!("/load/{}", turn % PATHS);
        let began = Instant::now();
        client.request("GET", &path, &[]).await;
        let answer = tokio::time::timeout(PATIENCE, client.try_response("GET")).await;
        let took = began.elapsed();
        let problem = match answer {
            Err(_) => Some(format!("{path}: no answer after {took:?}")),
            Ok(Err(error)) => Some(format!("{path}: {error} after {took:?}")),
            Ok(Ok(response)) => {
                let hit = usize::from(is_redis_hit(&response));
                tally.redis_hits.fetch_add(hit, Ordering::Relaxed);
                let right = response.status == 200 && response.text() == body_of(&path);
                (!right).then(|| format!("{path}: {response:#?}"))
            }
        };
        tally.answered.fetch_add(1, Ordering::Relaxed);
        {
            let mut slowest = tally.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            *slowest = took.max(*slowest);
        }
        if let Some(problem) = problem {
            tally.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
            client = Client::connect(pod).await;
        }
        tokio::time::sleep(PACE).await;
    }
}
