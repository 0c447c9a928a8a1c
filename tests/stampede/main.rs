//! Thousands of clients and one hot response that expires again and again: one fetch each time.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as Turns, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use outrigger_test_support::{CacheStatus, Gate, Head, Origin, Proxy, Reply, Script, within};

const CLIENTS: usize = 5_000;
/// How long they ask …
const STORM: Duration = Duration::from_secs(5);
/// … each of them again after this time.
const PAUSE: Duration = Duration::from_millis(900);
/// How long the origin takes for an answer.
const FETCH: Duration = Duration::from_millis(200);
/// `max-age` of the response. Its age counts from when it was asked for, in whole milliseconds.
const LIFETIME: Duration = Duration::from_millis(1_000 - 5);
/// Descriptors for the clients and for all the rest.
const FILES: usize = 16_384;
/// One storm at a time: two would measure the machine.
static TURNS: Turns<()> = Turns::const_new(());

/// What the origin saw of the fetches.
#[derive(Debug, Default)]
struct Fetches {
    began: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    overlapped: AtomicBool,
}

impl Fetches {
    fn begin(&self) {
        self.began.lock().unwrap().push(Instant::now());
        if self.under_way.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlapped.store(true, Ordering::SeqCst);
        }
    }

    fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// Panics if there was more than one fetch for an expiry. The first request was sent after
    /// `start`, each further one after the lifetime of what the one before it brought, and what
    /// delays either on its way makes the gap to the start larger only.
    fn assert_one_for_each_expiry(&self, start: Instant) {
        assert!(!self.overlapped.load(Ordering::SeqCst), "two fetches at the same time");
        let began = self.began.lock().unwrap();
        let since: Vec<_> = began.iter().map(|at| at.duration_since(start)).collect();
        for (nth, at) in since.iter().enumerate() {
            assert!(*at >= LIFETIME * nth as u32, "fetch {nth} came too early: {since:?}");
        }
        assert!(since.len() >= 2, "it expired in the meantime: {since:?}");
    }
}

/// An origin that numbers its answers and takes its time for each.
async fn slow_origin(control: &'static str) -> (Origin, Arc<Fetches>) {
    let origin = Origin::start().await;
    let fetches = Arc::new(Fetches::default());
    let seen = Arc::clone(&fetches);
    origin.on("/hot", move |request| {
        seen.begin();
        let (gate, seen) = (Gate::new(), Arc::clone(&seen));
        let script = Script::new().gate(&gate);
        tokio::spawn(async move {
            sleep(FETCH).await;
            seen.end();
            gate.open();
        });
        let reply = Reply::cached(control, format!("answer {:04}", request.nth));
        // With a validator it is stored even where a busy machine brings it after its lifetime.
        script.reply(reply.header("ETag", format!("\"{}\"", request.nth)))
    });
    (origin, fetches)
}

/// Asks on one connection until the time is over, and counts the answers.
async fn ask(mut stream: TcpStream, until: Instant, must_hit: bool) -> usize {
    let (mut answers, mut newest, mut buf) = (0, 0, Vec::new());
    while Instant::now() < until {
        stream.write_all(b"GET /hot HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
        let (head, nth) = answer(&mut stream, &mut buf).await;
        assert_eq!(head.word(1), "200", "{head:?}");
        assert!(nth >= newest, "answer {nth} came after {newest}");
        newest = nth;
        answers += 1;
        if must_hit {
            let status = CacheStatus::of(&head.all("cache-status"));
            let waited = status.has("fwd") || status.has("collapsed");
            assert!(status.has("hit") && !waited, "it waited for the upstream: {head:?}");
        }
        sleep(PAUSE).await;
    }
    answers
}

/// One response; the number in its body, which has to be one that the origin sends.
async fn answer(stream: &mut TcpStream, buf: &mut Vec<u8>) -> (Head, usize) {
    const BODY: usize = "answer 0000".len();
    buf.clear();
    loop {
        let read = within("a response", stream.read_buf(buf)).await.unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(buf));
        let Some(at) = buf.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let (head, body) = buf.split_at(at + 4);
        if body.len() >= BODY {
            let (head, text) = (Head::parse(head), std::str::from_utf8(body).unwrap());
            let nth = text.strip_prefix("answer ").and_then(|nth| nth.parse().ok());
            let nth = nth.unwrap_or_else(|| panic!("a wrong body: {text}: {head:?}"));
            return (head, nth);
        }
    }
}

/// Connections enough for all, opened before anyone asks.
async fn connect_all(proxy: &Proxy) -> Vec<TcpStream> {
    // A few at a time, so that the backlog of the listener does not overflow.
    let (turn, mut all) = (Arc::new(Semaphore::new(64)), JoinSet::new());
    for _ in 0..CLIENTS {
        let (addr, turn) = (proxy.addr, Arc::clone(&turn));
        all.spawn(async move {
            let _turn = turn.acquire().await.unwrap();
            TcpStream::connect(addr).await.expect("a connection to the proxy")
        });
    }
    all.join_all().await
}

/// Raises the soft limit on open files where it is low, as it is in many a shell.
fn allow_files() {
    let pid = std::process::id().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid]);
    let told = prlimit.args(["--nofile", "--output", "SOFT", "--noheadings"]).output();
    let told = told.expect("prlimit of util-linux runs").stdout;
    let soft = String::from_utf8_lossy(&told).trim().parse().unwrap_or(usize::MAX);
    if soft < FILES {
        let limit = format!("--nofile={FILES}:");
        let raised = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(raised.expect("prlimit runs").success(), "cannot open {FILES} files");
    }
}

async fn storm(control: &'static str, must_hit: bool) {
    let _turn = TURNS.lock().await;
    let (origin, fetches) = slow_origin(control).await;
    allow_files();
    let proxy = Proxy::start(&origin).await;
    let connections = connect_all(&proxy).await;
    let start = Instant::now();
    proxy.get("/hot").await.assert_is(200, "answer 0001");
    let until = Instant::now() + STORM;
    let mut all = JoinSet::new();
    for stream in connections {
        all.spawn(ask(stream, until, must_hit));
    }
    let answers = all.join_all().await;
    assert!(answers.iter().all(|answers| *answers > 0), "a client was never served");
    fetches.assert_one_for_each_expiry(start);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_hot_response_that_expires_and_may_be_stale() {
    storm("max-age=1, stale-while-revalidate=30", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_response_that_may_not_be_stale_is_fetched_once_for_each_expiry() {
    storm("max-age=1", false).await;
}
