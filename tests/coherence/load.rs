//! Clients that use random pods, and what they saw.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cluster::Addresses;
use crate::register::Held;
use crate::rng::Rng;
use crate::support::{Client, End, Response, eventually};

/// A client gives up after this time; what it asked for may still happen.
const LIMIT: Duration = Duration::from_millis(1500);
/// A key is left alone after so many operations, so that its history can be judged.
const OPS_PER_KEY: usize = 60;

/// One operation and what came of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which client.
    pub client: usize,
    /// Through which pod.
    pub pod: usize,
    /// The path.
    pub path: String,
    /// The value that was to be written; `None` for a read.
    pub written: Option<u64>,
    /// When it began, in nanoseconds of the test's clock.
    pub call: u64,
    /// When it was answered.
    pub ret: u64,
    /// What the answer holds; `None` if there was no good one.
    pub held: Option<Held>,
    /// What the pod said about it.
    pub said: String,
}

impl Seen {
    /// Whether a store answered.
    pub fn hit(&self) -> bool {
        self.held.is_some() && self.said.contains("; hit")
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let what = if self.written.is_some() { "PUT" } else { "GET" };
        let Self { client, pod, path, .. } = self;
        write!(f, "client {client} pod-{pod} {what} {path} ")?;
        write!(f, "{:.3}..{:.3} ms: {:?} [{}]", ms(self.call), ms(self.ret), self.held, self.said)
    }
}

/// What all clients share: the clock, the end, the values, the record.
#[derive(Debug)]
pub struct Run {
    began: Instant,
    over: AtomicBool,
    values: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

impl Run {
    /// A run that has just begun.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            over: AtomicBool::new(false),
            values: AtomicU64::new(0),
            seen: Mutex::default(),
        })
    }

    /// Nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends it: clients finish what they are at.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A value that nobody has written yet.
    pub fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds to the record.
    pub fn record(&self, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// Waits until so many operations have a good answer: on a busy machine a time alone is no load.
    pub async fn enough(&self) {
        eventually("enough good operations", || async { self.has_enough().then_some(()) }).await;
    }

    /// Whether there are enough good operations to conclude anything.
    pub fn has_enough(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| seen.held.is_some()).count() >= OPERATIONS
    }

    /// The record, in order of the calls.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort_by_key(|seen| seen.call);
        seen
    }
}

/// The least number of good operations from which a test concludes anything.
const OPERATIONS: usize = 300;

/// Prints how much happened, and fails a test that proves nothing.
pub fn assert_busy(what: &str, seen: &[Seen], hits_percent: usize) {
    let good = seen.iter().filter(|seen| seen.held.is_some()).count();
    let reads = seen.iter().filter(|seen| seen.written.is_none() && seen.held.is_some()).count();
    let hits = seen.iter().filter(|seen| seen.hit()).count();
    let redis = seen.iter().filter(|seen| seen.said.contains("redis-hit")).count();
    println!(
        "{what}: {} operations, {good} good, {reads} reads, {hits} hits, {redis} from Redis",
        seen.len()
    );
    assert!(good >= OPERATIONS, "{what}: only {good} good operations: the test proves nothing");
    assert!(hits * 100 >= reads * hits_percent, "{what}: {hits} hits in {reads} reads: too few");
}

/// The keys in use; each is replaced when it has been used enough.
#[derive(Debug)]
pub struct Keys {
    root: &'static str,
    slots: Mutex<Vec<(usize, usize)>>,
    next: AtomicU64,
}

impl Keys {
    /// This many at a time, below a path.
    pub fn new(root: &'static str, n: usize) -> Arc<Self> {
        let slots = (0..n).map(|n| (n, 0)).collect();
        Arc::new(Self { root, slots: Mutex::new(slots), next: AtomicU64::new(n as u64) })
    }

    /// The path of one of them.
    pub fn take(&self, rng: &mut Rng) -> String {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let n = slots.len();
        let slot = &mut slots[rng.below(n)];
        if slot.1 == OPS_PER_KEY {
            *slot = (self.next.fetch_add(1, Ordering::Relaxed) as usize, 0);
        }
        slot.1 += 1;
        format!("{}/k{}", self.root, slot.0)
    }
}

/// One client with a connection to each pod that it has met.
pub struct Caller {
    /// Its number.
    pub id: usize,
    /// Its luck.
    pub rng: Rng,
    /// Its latest `Outrigger-Session`, if it keeps one.
    pub session: Option<String>,
    keeps_session: bool,
    addresses: Addresses,
    connections: HashMap<SocketAddr, Client>,
}

impl Caller {
    /// A client without a session.
    pub fn new(id: usize, addresses: &Addresses) -> Self {
        let (rng, addresses) = (Rng::of(id as u64 + 100), addresses.clone());
        let connections = HashMap::new();
        Self { id, rng, session: None, keeps_session: false, addresses, connections }
    }

    /// A client that sends its session back.
    pub fn with_session(id: usize, addresses: &Addresses) -> Self {
        Self { keeps_session: true, ..Self::new(id, addresses) }
    }

    /// Reads a path through a pod, or writes this value.
    pub async fn call(&mut self, run: &Run, pod: usize, path: &str, written: Option<u64>) -> Seen {
        let addr = self.addresses.traffic(pod);
        let call = run.now();
        let exchange = self.exchange(addr, path, written);
        let response = tokio::time::timeout(LIMIT, exchange).await.unwrap_or(None);
        let ret = run.now();
        let said = match &response {
            Some(response) => {
                let cache = response.head.all("cache-status").join(", ");
                format!("{} {cache}", response.status)
            }
            None => {
                self.connections.remove(&addr);
                String::from("no answer")
            }
        };
        let good = response.filter(|r| r.status == 200 && r.end != End::Truncated);
        if let Some(token) = good.as_ref().and_then(|r| r.header("outrigger-session")) {
            self.session = self.keeps_session.then(|| token.to_owned());
        }
        let held = good.and_then(|r| Held::parse(&r.text()));
        let (client, path) = (self.id, path.to_owned());
        let seen = Seen { client, pod, path, written, call, ret, held, said };
        run.record(seen.clone());
        seen
    }

    async fn exchange(
        &mut self,
        addr: SocketAddr,
        path: &str,
        written: Option<u64>,
    ) -> Option<Response> {
        // Not put back unless all went well: a broken connection is not used again.
        let mut client = match self.connections.remove(&addr) {
            Some(client) => client,
            None => Client::try_connect(addr).await.ok()?,
        };
        let mut head = match written {
            None => format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n"),
            Some(_) => format!("PUT {path} HTTP/1.1\r\nHost: shop.test\r\n"),
        };
        if let Some(token) = &self.session {
            head.push_str(&format!("Outrigger-Session: {token}\r\n"));
        }
        let body = written.map(|value| value.to_string()).unwrap_or_default();
        if written.is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        client.send(format!("{head}\r\n{body}")).await;
        let method = if written.is_some() { "PUT" } else { "GET" };
        let response = client.try_response(method).await.ok()?;
        if response.end != End::Truncated && !response.head.lists("connection", "close") {
            self.connections.insert(addr, client);
        }
        Some(response)
    }

    /// Rests a moment, so that the machine has time for the pods.
    pub async fn rest(&mut self) {
        let ms = self.rng.below(6) as u64;
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Readers and writers of registers on random pods; they end with the run.
pub fn readers_and_writers(
    run: &Arc<Run>,
    keys: &Arc<Keys>,
    addresses: &Addresses,
    clients: usize,
    pods: usize,
) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for id in 0..clients {
        let (run, keys) = (Arc::clone(run), Arc::clone(keys));
        let mut caller = Caller::new(id, addresses);
        all.spawn(async move {
            while !run.is_over() {
                let path = keys.take(&mut caller.rng);
                let pod = caller.rng.below(pods);
                let written = caller.rng.percent(20).then(|| run.value());
                caller.call(&run, pod, &path, written).await;
                caller.rest().await;
            }
        });
    }
    all
}

/// Ends the run, and waits until all clients have ended; one that panicked fails the test.
pub async fn finish(run: &Run, mut clients: JoinSet<()>) {
    run.end();
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
}
