//! Fetches that began before a purge, and pods that start after it.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Shape};
use crate::support::{Gate, Origin, Reply, Script, head};

/// The ways to name `/e/p/r`.
fn matchers() -> [Value; 4] {
    [
        json!({"url": "http://shop.test/e/p/r"}),
        json!({"tag": "red"}),
        json!({"prefix": "http://shop.test/e/p/"}),
        json!({"all": true}),
    ]
}

/// The first fetch of `/e/p/r` is held, before its head or in its body.
async fn holding(in_body: bool) -> (Origin, Gate) {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let held = gate.clone();
    origin.on("*", move |r| {
        let body = format!("body {}", r.nth);
        let length = body.len().to_string();
        let lines = [
            ("Cache-Control", "max-age=600"),
            ("Cache-Tag", "red"),
            ("Content-Length", length.as_str()),
        ];
        let head = head(200, &lines);
        match (r.nth, in_body) {
            (1, true) => Script::new().send(head).send(&body[..2]).gate(&held).send(&body[2..]),
            (1, false) => Script::new().gate(&held).send(head).send(body),
            _ => Script::new().send(head).send(body),
        }
    });
    (origin, gate)
}

/// A fetch through pod 0 is held while a purge runs through pod 1.
async fn assert_purge_beats_fill(what: Value, in_body: bool) {
    let (origin, gate) = holding(in_body).await;
    let mut cluster = Shape::of(origin.url(), 3).start().await;
    let mut early = cluster.pods[0].proxy.connect().await;
    early.request("GET", "/e/p/r", &[]).await;
    origin.arrived("/e/p/r", 1).await;
    if in_body {
        early.final_head().await;
    }
    let answer = cluster.pods[1].purge_all(what.clone(), "5s").await;
    assert_eq!(answer["missing"], json!([]), "{answer}");
    gate.open();
    early.until("body 1").await;
    // The first to ask is one that was not there: what it can have is from Redis or the origin.
    let new = cluster.add().await;
    for pod in std::iter::once(new).chain(0..3) {
        let pod = &cluster.pods[pod];
        let text = pod.get("/e/p/r").await.text();
        assert_ne!(text, "body 1", "{} after {what} (in the body: {in_body})", pod.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_waits_for_its_head_is_not_served_after_a_purge_elsewhere() {
    for what in matchers() {
        assert_purge_beats_fill(what, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_in_the_middle_of_its_body_is_not_served_after_a_purge_elsewhere() {
    for what in matchers() {
        assert_purge_beats_fill(what, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_after_a_purge_elsewhere_does_not_join_a_fetch_from_before() {
    let (origin, gate) = holding(false).await;
    let cluster = Shape::of(origin.url(), 2).start().await;
    let mut early = cluster.pods[0].proxy.connect().await;
    early.request("GET", "/e/p/r", &[]).await;
    origin.arrived("/e/p/r", 1).await;
    cluster.pods[1].purge_all(json!({"url": "http://shop.test/e/p/r"}), "5s").await;
    // The gate is closed still.
    cluster.pods[0].get("/e/p/r").await.assert_is(200, "body 2");
    gate.open();
    early.response("GET").await.assert_is(200, "body 1");
    for pod in &cluster.pods {
        assert_ne!(pod.get("/e/p/r").await.text(), "body 1", "{}", pod.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_after_a_write_elsewhere_does_not_get_a_fetch_from_before() {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let held = gate.clone();
    origin.on("/e/a", move |r| match (r.method(), r.nth) {
        ("GET", 1) => Script::new().gate(&held).reply(Reply::cached("max-age=600", "before")),
        ("GET", _) => Reply::cached("max-age=600", "after").into(),
        _ => Reply::ok("written").into(),
    });
    let mut cluster = Shape::of(origin.url(), 2).start().await;
    let mut early = cluster.pods[0].proxy.connect().await;
    early.request("GET", "/e/a", &[]).await;
    origin.arrived("/e/a", 1).await;
    let put = cluster.pods[1].proxy.fetch("PUT", "/e/a", &[("Content-Length", "0")]).await;
    put.assert_is(200, "written");
    cluster.level().await;
    gate.open();
    early.response("GET").await.assert_is(200, "before");
    let new = cluster.add().await;
    for pod in [new, 0, 1] {
        cluster.pods[pod].get("/e/a").await.assert_is(200, "after");
    }
}

/// Every answer is another one.
async fn tagged() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        let reply = Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth));
        reply.header("Cache-Tag", "red")
    });
    origin
}

/// The only path that is in Redis.
async fn shared(cluster: &Cluster, path: &str) -> String {
    let old = cluster.pods[0].store(path).await;
    cluster.in_redis(1).await;
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_uses_what_redis_has() {
    let origin = tagged().await;
    let mut cluster = Shape::of(origin.url(), 2).start().await;
    let old = shared(&cluster, "/e/p/r").await;
    // A purge of something else.
    cluster.pods[0].purge(json!({"tag": "blue"})).await;
    let new = cluster.add().await;
    cluster.pods[new].caught_up(cluster.pods[0].applied().await).await;
    let first = cluster.pods[new].get("/e/p/r").await;
    assert_eq!(first.assert_hit().text(), old);
    assert!(matches!(first.cache().get("detail"), None | Some("redis-hit")), "{first:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_does_not_take_from_redis_what_was_purged_before_it_started() {
    for what in matchers() {
        let origin = tagged().await;
        let mut cluster = Shape::of(origin.url(), 2).start().await;
        let old = shared(&cluster, "/e/p/r").await;
        cluster.pods[1].purge(what.clone()).await;
        for _ in 0..2 {
            let new = cluster.add().await;
            assert_ne!(cluster.pods[new].get("/e/p/r").await.text(), old, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_does_not_take_from_redis_what_was_purged_before_the_log_begins() {
    let origin = tagged().await;
    let mut cluster = Shape::of(origin.url(), 2).events_max(10).start().await;
    let old = shared(&cluster, "/e/p/r").await;
    cluster.pods[1].purge(json!({"url": "http://shop.test/e/p/r"})).await;
    for n in 0..50 {
        cluster.pods[0].purge(json!({"tag": format!("t{n}")})).await;
    }
    let new = cluster.add().await;
    assert_ne!(cluster.pods[new].get("/e/p/r").await.text(), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_starts_without_redis_serves_and_joins_later() {
    let origin = tagged().await;
    let mut cluster = Shape::of(origin.url(), 2).start().await;
    let old = shared(&cluster, "/e/p/r").await;
    cluster.redis.stop_process();
    let new = cluster.add().await;
    cluster.pods[new].get("/e/p/r").await.assert_status(200);
    assert_ne!(cluster.pods[new].store("/e/p/q").await, old);
    cluster.redis.continue_process();
    cluster.all_live().await;
    cluster.pods[0].purge_all(json!({"all": true}), "5s").await;
    let text = cluster.pods[new].get("/e/p/q").await.text();
    assert_ne!(text, "/e/p/q 1");
}
