//! Limits on what is under way: requests, misses, refreshes.

use super::{guarded, metric, state};
use crate::support::{Client, Gate, Origin, Reply, Script, Setup, eventually};

/// Starts a GET and leaves it waiting.
async fn begin(addr: std::net::SocketAddr, path: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(addr).await;
    client.request("GET", path, headers).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_requests_wait_and_beyond_the_queue_they_are_refused() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("fine")));
    let guard = "{concurrency: {max: 1, queue: 1, queueTimeout: 10s}}";
    let proxy = guarded(&origin, guard).await;
    let mut first = begin(proxy.addr, "/1", &[]).await;
    origin.arrived("/1", 1).await;
    let mut second = begin(proxy.addr, "/2", &[]).await;
    eventually("the second waits", || async {
        (state(&proxy).await["concurrency"][0]["queued"] == 1).then_some(())
    })
    .await;
    let third = proxy.get("/3").await;
    third.assert_status(503);
    assert_eq!(third.cache().get("detail"), Some("queue-full"), "{third:#?}");
    assert_eq!(third.header("retry-after"), Some("1"));
    assert_eq!(origin.hits("/2"), 0);
    gate.open();
    first.response("GET").await.assert_is(200, "fine");
    second.response("GET").await.assert_is(200, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_important_gives_way() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("fine")));
    let policy = "guard: {concurrency: {max: 1, queue: 1, queueTimeout: 10s}}\nroutes:\n  \
                  - name: low\n    match: {path: {prefix: /low}}\n    guard: {priority: low}\n  \
                  - name: high\n    match: {path: {prefix: /high}}\n    guard: {priority: high}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let mut first = begin(proxy.addr, "/1", &[]).await;
    origin.arrived("/1", 1).await;
    let mut low = begin(proxy.addr, "/low", &[]).await;
    eventually("the low one waits", || async {
        (state(&proxy).await["concurrency"][0]["queued"] == 1).then_some(())
    })
    .await;
    let mut high = begin(proxy.addr, "/high", &[]).await;
    let displaced = low.response("GET").await;
    displaced.assert_status(503);
    assert_eq!(displaced.cache().get("detail"), Some("displaced"), "{displaced:#?}");
    gate.open();
    first.response("GET").await.assert_status(200);
    high.response("GET").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_queue_allows() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("fine")));
    let guard = "{concurrency: {max: 1, queue: 9, queueTimeout: 50ms}}";
    let proxy = guarded(&origin, guard).await;
    let _first = begin(proxy.addr, "/1", &[]).await;
    origin.arrived("/1", 1).await;
    let late = proxy.get("/2").await;
    late.assert_status(503);
    assert_eq!(late.cache().get("detail"), Some("queue-timeout"));
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_bridged_by_what_is_stored() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/s", Reply::cached("max-age=0, stale-if-error=600", "old"));
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("fine")));
    let proxy = guarded(&origin, "{concurrency: {max: 1, queue: 0}}").await;
    proxy.get("/s").await.assert_is(200, "old");
    let _busy = begin(proxy.addr, "/1", &[]).await;
    origin.arrived("/1", 1).await;
    let stale = proxy.get("/s").await;
    stale.assert_is(200, "old").assert_hit();
    assert_eq!(stale.cache().get("detail"), Some("stale-overload"));
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_of_one_client_leave_room_for_others() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.on("/search", {
        let gate = gate.clone();
        move |_| Script::new().gate(&gate).reply(Reply::cached("max-age=60", "found"))
    });
    let guard = "{misses: {max: 4, perClient: 2, client: \"header:x-client\"}}";
    let proxy = guarded(&origin, guard).await;
    let mine = [("x-client", "a")];
    let mut waiting = Vec::new();
    for n in 0..2 {
        waiting.push(begin(proxy.addr, &format!("/search?q={n}"), &mine).await);
    }
    origin.arrived("/search", 2).await;
    let busting = proxy.fetch("GET", "/search?q=x", &mine).await;
    busting.assert_status(503);
    assert_eq!(busting.cache().get("detail"), Some("client-misses"), "{busting:#?}");
    for n in 0..2 {
        waiting.push(begin(proxy.addr, &format!("/search?o={n}"), &[("x-client", "b")]).await);
    }
    origin.arrived("/search", 4).await;
    let more = proxy.fetch("GET", "/search?q=y", &[("x-client", "c")]).await;
    assert_eq!(more.cache().get("detail"), Some("misses"));
    let refused = "outrigger_guard_refused_total{result=\"client-misses\"}";
    assert_eq!(metric(&proxy, refused).await, 1);
    gate.open();
    for mut client in waiting {
        client.response("GET").await.assert_is(200, "found");
    }
    proxy.fetch("GET", "/search?q=x", &mine).await.assert_is(200, "found");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_does_not_share_the_refusal_of_one() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("*", move |r| match r.path() {
        "/hold" => Script::new().gate(&held).reply(Reply::cached("max-age=60", "held")),
        _ => Reply::cached("max-age=60", "fine").into(),
    });
    let guard = "{misses: {max: 9, perClient: 1, client: \"header:x-client\"}}";
    let proxy = guarded(&origin, guard).await;
    let mut busy = begin(proxy.addr, "/hold", &[("x-client", "a")]).await;
    origin.arrived("/hold", 1).await;
    proxy.fetch("GET", "/x", &[("x-client", "a")]).await.assert_status(503);
    proxy.fetch("GET", "/x", &[("x-client", "b")]).await.assert_is(200, "fine");
    gate.open();
    busy.response("GET").await.assert_is(200, "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_are_bounded() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("*", move |r| {
        let reply = Reply::cached("max-age=0, stale-while-revalidate=600", "old");
        if r.nth == 1 { reply.into() } else { Script::new().gate(&held).reply(reply) }
    });
    let proxy = guarded(&origin, "{refreshes: {max: 2, jitter: 0ms}}").await;
    for _ in 0..2 {
        for n in 0..6 {
            proxy.get(&format!("/{n}")).await.assert_is(200, "old");
        }
    }
    eventually("two refreshes", || async { (origin.all_requests().len() == 8).then_some(()) })
        .await;
    for n in 0..6 {
        proxy.get(&format!("/{n}")).await.assert_is(200, "old");
    }
    assert_eq!(origin.all_requests().len(), 8);
    assert!(metric(&proxy, "outrigger_refreshes_total{result=\"too-many\"}").await >= 4);
    gate.open();
}
