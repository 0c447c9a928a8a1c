//! Signals: nothing is lost on the way out.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{Client, Gate, Origin, Proxy, Reply, Script, Setup, eventually, head};

/// What a client of the load loop met.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    lost: std::sync::Mutex<Vec<String>>,
    terminating: AtomicBool,
}

impl Tally {
    fn lose(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }
}

/// Sends requests one after the other, honouring `Connection: close`, until the
/// proxy no longer accepts connections.
async fn load(addr: std::net::SocketAddr, tally: Arc<Tally>, n: usize) {
    let mut asked = 0;
    loop {
        let mut client = match Client::try_connect(addr).await {
            Ok(client) => client,
            Err(error) if tally.terminating.load(Ordering::SeqCst) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                    ),
                    "{error}"
                );
                return;
            }
            Err(error) => return tally.lose(format!("connect before the signal: {error}")),
        };
        let mut on_this = 0;
        loop {
            let path =
                if asked % 3 == 0 { "/hit".to_owned() } else { format!("/miss/{n}/{asked}") };
            asked += 1;
            client.request("GET", &path, &[]).await;
            let answer = client.try_response("GET");
            match tokio::time::timeout(crate::support::PATIENCE, answer).await {
                Ok(Ok(response)) if response.status == 200 && !response.body.is_empty() => {
                    tally.answered.fetch_add(1, Ordering::SeqCst);
                    on_this += 1;
                    if response.head.lists("connection", "close") {
                        break;
                    }
                }
                Ok(Ok(response)) => return tally.lose(format!("{path}: {response:#?}")),
                Ok(Err(error)) => {
                    return tally
                        .lose(format!("{path}: request {on_this} of its connection: {error}"));
                }
                Err(_) => return tally.lose(format!("{path}: no answer in time")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_no_request() {
    let origin = Origin::start().await;
    origin.always("/hit", Reply::cached("max-age=600", "stored"));
    let pause = Duration::from_millis(5);
    origin.on("*", move |r| {
        let reply = Reply::ok(r.path()).header("Cache-Control", "no-store");
        Script::new().sleep(pause).reply(reply)
    });
    let mut proxy = Proxy::start(&origin).await;
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for n in 0..32 {
        clients.spawn(load(proxy.addr, Arc::clone(&tally), n));
    }
    eventually("load", || async { (tally.answered.load(Ordering::SeqCst) > 300).then_some(()) })
        .await;
    tally.terminating.store(true, Ordering::SeqCst);
    proxy.signal("TERM");
    let exit = proxy.wait_exit().await;
    crate::support::within("the clients end", clients.join_all()).await;
    let lost = tally.lost.lock().unwrap();
    let answered = tally.answered.load(Ordering::SeqCst);
    assert!(lost.is_empty(), "{} lost, {answered} answered: {:#?}", lost.len(), lost.first());
    assert_eq!(exit.code, Some(0), "{}", exit.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_response_under_way_finish_and_says_it_is_draining() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let script = Script::new()
        .send(head(200, &[("Content-Length", "10"), ("Cache-Control", "max-age=60")]))
        .send("first ")
        .gate(&gate)
        .send("rest");
    origin.always("/long", script);
    let config = "lifecycle: {drainQuietMs: 100, drainTimeoutMs: 20000}";
    let mut proxy = Setup::of(&origin).config(config).start().await;
    let mut client = proxy.connect().await;
    client.request("GET", "/long", &[]).await;
    client.until("first ").await;
    proxy.signal("TERM");
    eventually("readiness goes away", || async {
        (proxy.is_ready().await == Some(false)).then_some(())
    })
    .await;
    assert!(proxy.exited().is_none(), "it left with a response under way");
    gate.open();
    client.until("rest").await;
    client.rest_until_close().await;
    assert_eq!(proxy.wait_exit().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_nothing_to_do_exits_soon() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let mut proxy = Proxy::start(&origin).await;
    // An idle connection is nothing to wait for.
    let mut idle = proxy.connect().await;
    idle.get("/a", &[]).await.assert_status(200);
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit().await.code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_cut_off() {
    let origin = Origin::start().await;
    origin.always("/never", Script::new().hang());
    let config = "lifecycle: {drainQuietMs: 50, drainTimeoutMs: 500}";
    let mut proxy = Setup::of(&origin).config(config).start().await;
    let mut client = proxy.connect().await;
    client.request("GET", "/never", &[]).await;
    origin.arrived("/never", 1).await;
    let began = Instant::now();
    proxy.signal("TERM");
    proxy.wait_exit().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "it did not wait: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_exits_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let origin = Origin::start().await;
        origin.always("/never", Script::new().hang());
        let config = "lifecycle: {drainQuietMs: 60000, drainTimeoutMs: 60000}";
        let mut proxy = Setup::of(&origin).config(config).start().await;
        let mut client = proxy.connect().await;
        client.request("GET", "/never", &[]).await;
        origin.arrived("/never", 1).await;
        proxy.signal(first);
        eventually("it drains", || async { (proxy.is_ready().await != Some(true)).then_some(()) })
            .await;
        assert!(proxy.exited().is_none(), "the first {first} did not wait");
        let began = Instant::now();
        proxy.signal(second);
        proxy.wait_exit().await;
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_does_not_outlive_the_drain_time_out() {
    let origin = Origin::start().await;
    let switching = head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    origin.always("/ws", Script::new().send(switching).echo());
    let config = "lifecycle: {drainQuietMs: 50, drainTimeoutMs: 500}";
    let mut proxy = Setup::of(&origin).config(config).start().await;
    let mut client = proxy.connect().await;
    client.request("GET", "/ws", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]).await;
    assert_eq!(client.next_head().await.word(1), "101");
    let began = Instant::now();
    proxy.signal("TERM");
    proxy.wait_exit().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
