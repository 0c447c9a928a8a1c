//! Fetches whose clients have all left: which go on, for how long, and which end.

use tokio::task::JoinHandle;

use crate::support::{
    ChannelBody, Client, Gate, H2Client, Origin, Proxy, Reply, Script, Setup, chunk, eventually,
    head, metric,
};

async fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = proxy.connect().await;
    client.request("GET", path, headers).await;
    client
}

async fn metric_is(proxy: &Proxy, name: &str, labels: &[(&str, &str)], value: usize) {
    eventually(&format!("{name} {labels:?} is {value}"), || async {
        (metric(proxy, name, labels).await == value as f64).then_some(())
    })
    .await;
}

/// Waits until so many fetches go on without clients.
async fn unread(proxy: &Proxy, n: usize) {
    metric_is(proxy, "outrigger_fetches_unread", &[], n).await;
}

/// Waits until so many fetches without clients have ended so.
async fn ended(proxy: &Proxy, result: &str, n: usize) {
    metric_is(proxy, "outrigger_coalesce_unread_total", &[("result", result)], n).await;
}

/// Waits until so many requests have begun a fetch or joined one.
async fn fetching(proxy: &Proxy, n: usize) {
    eventually(&format!("{n} request(s) fetch"), || async {
        let leaders = metric(proxy, "outrigger_coalesce_leaders_total", &[]).await;
        let waiters = metric(proxy, "outrigger_coalesce_waiters_total", &[]).await;
        (leaders + waiters >= n as f64).then_some(())
    })
    .await;
}

/// An origin that holds a response which may be stored.
async fn slow(path: &str) -> (Origin, Gate) {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let reply = Reply::cached("max-age=600", "worth waiting for");
    origin.always(path, Script::new().gate(&gate).reply(reply));
    (origin, gate)
}

async fn is_stored(origin: &Origin, proxy: &Proxy, path: &str) {
    proxy.get(path).await.assert_is(200, "worth waiting for").assert_hit();
    assert_eq!(origin.hits(path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_impatient_clients_are_one_request_and_its_response_is_stored() {
    for consistency in ["eventual", "causal", "strong"] {
        let (origin, gate) = slow("/slow").await;
        let policy = format!("routes: [{{name: all, cache: {{consistency: {consistency}}}}}]");
        let proxy = Setup::of(&origin).policy(&policy).start().await;
        for n in 1..=4 {
            let client = ask(&proxy, "/slow", &[]).await;
            fetching(&proxy, n).await;
            client.reset();
            unread(&proxy, 1).await;
        }
        gate.open();
        ended(&proxy, "done", 1).await;
        is_stored(&origin, &proxy, "/slow").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_http_2_that_are_reset_leave_their_fetch_running() {
    let (origin, gate) = slow("/slow").await;
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    for n in 1..=4 {
        let on = client.clone();
        let asking: JoinHandle<()> = tokio::spawn(async move {
            let request = on.to("GET", "/slow").body(ChannelBody::of("", &[])).unwrap();
            let _ = on.send(request).await;
        });
        fetching(&proxy, n).await;
        asking.abort();
        unread(&proxy, 1).await;
    }
    gate.open();
    ended(&proxy, "done", 1).await;
    is_stored(&origin, &proxy, "/slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_while_nobody_reads_gets_the_response() {
    let (origin, gate) = slow("/slow").await;
    let proxy = Proxy::start(&origin).await;
    let first = ask(&proxy, "/slow", &[]).await;
    origin.arrived("/slow", 1).await;
    first.reset();
    unread(&proxy, 1).await;
    let mut second = ask(&proxy, "/slow", &[]).await;
    unread(&proxy, 0).await;
    gate.open();
    second.response("GET").await.assert_is(200, "worth waiting for");
    is_stored(&origin, &proxy, "/slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_is_taken_at_full_speed_and_stored() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let rest = vec![b'x'; 7 << 20];
    let lines = [("Cache-Control", "max-age=600"), ("Transfer-Encoding", "chunked")];
    let script = Script::new().send(head(200, &lines)).send(chunk("first ")).gate(&gate);
    origin.always("/big", script.send(chunk(&rest)).send(b"0\r\n\r\n"));
    let proxy = Proxy::start(&origin).await;
    let mut client = ask(&proxy, "/big", &[]).await;
    client.until("first ").await;
    client.reset();
    unread(&proxy, 1).await;
    gate.open();
    ended(&proxy, "done", 1).await;
    let stored = proxy.get("/big").await;
    assert_eq!(stored.body.len(), "first ".len() + rest.len());
    stored.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_outlives_its_client() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let held = gate.clone();
    origin.on("/v", move |r| match r.header("if-none-match") {
        Some(_) => {
            let confirmed = Reply::new(304).header("Cache-Control", "max-age=600");
            Script::new().gate(&held).reply(confirmed.header("ETag", "\"1\""))
        }
        None => Reply::cached("max-age=0", "worth waiting for").header("ETag", "\"1\"").into(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/v").await.assert_status(200);
    let client = ask(&proxy, "/v", &[]).await;
    origin.arrived("/v", 2).await;
    client.reset();
    unread(&proxy, 1).await;
    gate.open();
    ended(&proxy, "done", 1).await;
    proxy.get("/v").await.assert_is(200, "worth waiting for").assert_hit();
    assert_eq!(origin.hits("/v"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_not_to_be_storable_ends_with_its_client() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let lines = [("Cache-Control", "no-store"), ("Transfer-Encoding", "chunked")];
    let script = Script::new().gate(&gate).send(head(200, &lines)).send(chunk("own")).hang();
    origin.always("/own", script);
    let proxy = Proxy::start(&origin).await;
    let client = ask(&proxy, "/own", &[]).await;
    origin.arrived("/own", 1).await;
    client.reset();
    unread(&proxy, 1).await;
    gate.open();
    origin.peer_left("/own").await;
    ended(&proxy, "done", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_stored_ends_with_its_client() {
    let requests = [
        ("GET", "a request without storing", ("Cache-Control", "no-store")),
        ("GET", "credentials", ("Authorization", "Basic YTpi")),
        ("GET", "a range", ("Range", "bytes=0-9")),
        ("HEAD", "a response without a body", ("Accept", "*/*")),
    ];
    for (method, what, header) in requests {
        let (origin, _gate) = slow("/p").await;
        let proxy = Proxy::start(&origin).await;
        let mut client = proxy.connect().await;
        client.request(method, "/p", &[header]).await;
        origin.arrived("/p", 1).await;
        client.reset();
        origin.peer_left("/p").await;
        let went_on = metric(&proxy, "outrigger_coalesce_unread_total", &[]).await;
        assert_eq!(went_on, 0.0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_with_cookies_one_at_a_time_goes_on() {
    let (origin, gate) = slow("/c").await;
    let proxy = Proxy::start(&origin).await;
    let (ann, bob) = ([("Cookie", "a=1")], [("Cookie", "b=2")]);
    let first = ask(&proxy, "/c", &ann).await;
    origin.arrived("/c", 1).await;
    first.reset();
    unread(&proxy, 1).await;
    let second = ask(&proxy, "/c", &bob).await;
    origin.arrived("/c", 2).await;
    second.reset();
    ended(&proxy, "too-many", 1).await;
    origin.peer_left("/c").await;
    gate.open();
    ended(&proxy, "done", 1).await;
    proxy.get("/c").await.assert_is(200, "worth waiting for").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_fetches_without_clients_is_bounded() {
    for (max, goes_on) in [(1, true), (0, false)] {
        let (origin, gate) = slow("/1").await;
        origin.always("/2", Script::new().gate(&gate).reply(Reply::cached("max-age=600", "two")));
        let config = format!("coalesce: {{unreadMax: {max}}}");
        let proxy = Setup::of(&origin).config(&config).start().await;
        for (path, stays) in [("/1", goes_on), ("/2", false)] {
            let client = ask(&proxy, path, &[]).await;
            origin.arrived(path, 1).await;
            client.reset();
            if stays {
                unread(&proxy, 1).await;
            } else {
                origin.peer_left(path).await;
            }
        }
        ended(&proxy, "too-many", 2 - max).await;
        gate.open();
        ended(&proxy, "done", max).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_fetch_without_clients_is_bounded() {
    let (origin, _gate) = slow("/slow").await;
    let proxy = Setup::of(&origin).config("coalesce: {unreadMsMax: 50}").start().await;
    let client = ask(&proxy, "/slow", &[]).await;
    origin.arrived("/slow", 1).await;
    client.reset();
    origin.peer_left("/slow").await;
    ended(&proxy, "too-long", 1).await;
    unread(&proxy, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_fetches_without_clients_are_bounded() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let lines = [("Cache-Control", "max-age=600"), ("Transfer-Encoding", "chunked")];
    let script = Script::new().send(head(200, &lines)).send(chunk("first ")).gate(&gate);
    origin.always("/big", script.send(chunk(vec![b'x'; 8192])).hang());
    let proxy = Setup::of(&origin).config("coalesce: {unreadBytesMax: 4KiB}").start().await;
    let mut client = ask(&proxy, "/big", &[]).await;
    client.until("first ").await;
    client.reset();
    unread(&proxy, 1).await;
    gate.open();
    origin.peer_left("/big").await;
    ended(&proxy, "too-large", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_without_clients_does_not_hold_up_the_shutdown() {
    let (origin, _gate) = slow("/slow").await;
    let config = "lifecycle: {drainQuietMs: 10, drainTimeoutMs: 600000}";
    let mut proxy = Setup::of(&origin).config(config).start().await;
    let client = ask(&proxy, "/slow", &[]).await;
    origin.arrived("/slow", 1).await;
    client.reset();
    unread(&proxy, 1).await;
    proxy.signal("TERM");
    assert_eq!(proxy.wait_exit().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_without_clients_keeps_its_place_among_the_misses() {
    let (origin, gate) = slow("/slow").await;
    origin.always("/other", Reply::cached("max-age=600", "other"));
    let policy = "guard: {misses: {max: 1}}\nroutes: []\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let client = ask(&proxy, "/slow", &[]).await;
    origin.arrived("/slow", 1).await;
    client.reset();
    unread(&proxy, 1).await;
    proxy.get("/other").await.assert_status(503);
    gate.open();
    ended(&proxy, "done", 1).await;
    proxy.get("/other").await.assert_is(200, "other");
}
