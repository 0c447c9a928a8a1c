//! A steady load: requests at fixed times, whether or not earlier ones are
//! answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Client, End, eventually};

use super::netns::{Connector, Namespace};
use super::{HOST, SERVICE};

/// No request may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<Report>,
}

/// What became of its requests.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were sent.
    pub sent: usize,
    /// How many of the answers came from a cache.
    pub hits: usize,
    /// Requests without a 200, with the time since the start.
    pub failures: Vec<(Duration, String)>,
    /// The longest that one took.
    pub slowest: Duration,
}

impl Load {
    /// Sends GETs for a path from a pod, this many a second, over a few
    /// connections that are kept as long as they last.
    pub fn start(net: &Namespace, path: &str, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let hits = Arc::new(AtomicUsize::new(0));
        let sender = Sender {
            connector: net.connector(),
            path: path.to_owned(),
            idle: Arc::default(),
            hits: Arc::clone(&hits),
        };
        let task = tokio::spawn(run(sender, rate, Arc::clone(&stop)));
        Self { stop, hits, task }
    }

    /// Waits until this many more answers have come from the cache.
    pub async fn more_hits(&self, n: usize) {
        let wanted = self.hits.load(Ordering::Relaxed) + n;
        let enough = || async { (self.hits.load(Ordering::Relaxed) >= wanted).then_some(()) };
        eventually("answers from the cache under load", enough).await;
    }

    /// Ends it and waits for what is under way.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load ends")
    }
}

impl Report {
    /// Fails if a single request did.
    pub fn without_failure(&self) -> &Self {
        let Self { sent, failures, .. } = self;
        assert!(failures.is_empty(), "{} of {sent} failed: {failures:#?}", failures.len());
        assert!(*sent > 0, "nothing was sent");
        self
    }
}

async fn run(sender: Sender, rate: u32, stop: Arc<AtomicBool>) -> Report {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut requests, mut report) = (JoinSet::new(), Report::default());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        // Every fourth comes on a connection of its own.
        let kept = report.sent % 4 != 0;
        report.sent += 1;
        let sender = sender.clone();
        requests.spawn(async move {
            let at = Instant::now();
            let result = tokio::time::timeout(PATIENCE, sender.one(kept)).await;
            let result = result.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")));
            (at - started, at.elapsed(), result)
        });
        while let Some(done) = requests.try_join_next() {
            report.note(done.expect("a request ends"));
        }
    }
    while let Some(done) = requests.join_next().await {
        report.note(done.expect("a request ends"));
    }
    report.hits = sender.hits.load(Ordering::Relaxed);
    report
}

impl Report {
    fn note(&mut self, (at, took, result): (Duration, Duration, Result<(), String>)) {
        self.slowest = self.slowest.max(took);
        if let Err(why) = result {
            self.failures.push((at, format!("{why} (after {took:?})")));
        }
    }
}

/// What each request needs.
#[derive(Clone)]
struct Sender {
    connector: Connector,
    path: String,
    idle: Arc<Mutex<Vec<Client>>>,
    hits: Arc<AtomicUsize>,
}

impl Sender {
    /// One request. A connection that was kept and fails is a failure too: whoever
    /// closes one says so in the response before.
    async fn one(&self, kept: bool) -> Result<(), String> {
        let idle = || self.idle.lock().expect("the list of connections");
        let client = if kept { idle().pop() } else { None };
        let mut client = match client {
            Some(client) => client,
            None => {
                let addr: SocketAddr = SERVICE.parse().expect("an address");
                Client::over(self.connector.connect(addr).await.map_err(|e| e.to_string())?)
            }
        };
        client.request("GET", &self.path, &[("host", HOST)]).await;
        let response = client.try_response("GET").await.map_err(|e| e.to_string())?;
        if response.end == End::Truncated {
            return Err("the body was cut".to_owned());
        }
        if response.status != 200 {
            return Err(format!("{} {}", response.status, response.text()));
        }
        if kept && !response.head.lists("connection", "close") {
            idle().push(client);
        }
        let status = response.header("cache-status").unwrap_or_default();
        self.hits.fetch_add(usize::from(status.contains("hit")), Ordering::Relaxed);
        Ok(())
    }
}
