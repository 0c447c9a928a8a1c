//! A steady load: requests at fixed times, whether or not earlier ones are
//! answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Client, End, Response};

use super::netns::{Connector, Namespace};
use super::{HOST, SERVICE};

/// No request may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
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
        let connector = net.connector();
        let task = tokio::spawn(run(connector, path.to_owned(), rate, Arc::clone(&stop)));
        Self { stop, task }
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

async fn run(connector: Connector, path: String, rate: u32, stop: Arc<AtomicBool>) -> Report {
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let addr: SocketAddr = SERVICE.parse().expect("an address");
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut requests, mut report) = (JoinSet::new(), Report::default());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (connector, idle, path) = (connector.clone(), Arc::clone(&idle), path.clone());
        report.sent += 1;
        requests.spawn(async move {
            let at = Instant::now();
            let one = one(&connector, addr, &path, &idle);
            let result = tokio::time::timeout(PATIENCE, one).await;
            let result = result.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")));
            (at, at.elapsed(), result)
        });
        while let Some(done) = requests.try_join_next() {
            report.note(started, done.expect("a request ends"));
        }
    }
    while let Some(done) = requests.join_next().await {
        report.note(started, done.expect("a request ends"));
    }
    report
}

impl Report {
    fn note(&mut self, start: Instant, done: (Instant, Duration, Result<Response, String>)) {
        let (at, took, result) = done;
        self.slowest = self.slowest.max(took);
        match result {
            Ok(response) if response.status == 200 => {
                let status = response.header("cache-status").unwrap_or_default();
                self.hits += usize::from(status.contains("hit"));
            }
            Ok(response) => {
                let body = String::from_utf8_lossy(&response.body).into_owned();
                self.failures.push((at - start, format!("{} {body}", response.status)));
            }
            Err(why) => self.failures.push((at - start, why)),
        }
    }
}

/// One request. A connection that was kept and fails is a failure too: whoever
/// closes one says so in the response before.
async fn one(
    connector: &Connector,
    addr: SocketAddr,
    path: &str,
    idle: &Mutex<Vec<Client>>,
) -> Result<Response, String> {
    let kept = idle.lock().expect("the list of connections").pop();
    let mut client = match kept {
        Some(client) => client,
        None => Client::over(connector.connect(addr).await.map_err(|e| e.to_string())?),
    };
    client.request("GET", path, &[("host", HOST)]).await;
    let response = client.try_response("GET").await.map_err(|e| e.to_string())?;
    if response.end == End::Truncated {
        return Err("the body was cut".to_owned());
    }
    if !response.head.lists("connection", "close") {
        idle.lock().expect("the list of connections").push(client);
    }
    Ok(response)
}
