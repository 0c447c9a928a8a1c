//! Pods and Redis that were away: nothing that was purged comes back.

use serde_json::{Value, json};

use crate::cluster::{Pod, Shape};
use crate::support::{Gate, Origin, Reply, Script, eventually};

/// Every answer of the origin is another one.
async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)).header("Cache-Tag", "all")
    });
    origin
}

fn url(path: &str) -> Value {
    json!({"url": format!("http://shop.test{path}")})
}

/// Waits until a pod no longer answers what it had.
async fn gone(pod: &Pod, path: &str, old: &[String]) {
    eventually(&format!("{} forgets {old:?}", pod.name), || async {
        (!old.contains(&pod.get(path).await.text())).then_some(())
    })
    .await;
}

/// What is answered is none of these.
async fn assert_new(pod: &Pod, path: &str, old: &[String]) {
    let now = pod.get(path).await;
    assert!(!old.contains(&now.text()), "{} has it still: {now:#?}", pod.name);
}

/// What is answered is from a store, and one of these.
async fn assert_kept(pod: &Pod, path: &str, old: &[String]) {
    let now = pod.get(path).await;
    assert!(old.contains(&now.assert_hit().text()), "{}: {now:#?}", pod.name);
}

/// Sends a purge that cannot be appended now.
async fn queued(pod: &Pod, what: Value) {
    let answer = pod.proxy.try_purge(&what.to_string()).await;
    answer.assert_status(202);
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(answer["queued"], true, "{answer}");
    assert_eq!(answer["seq"], Value::Null, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_without_the_log_counts_here_at_once_and_everywhere_later() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).link(0).start().await;
    let old = cluster.warm("/e/a").await;
    let kept = cluster.warm("/e/b").await;
    cluster.pods[0].cut().await;
    queued(&cluster.pods[0], url("/e/a")).await;
    assert_new(&cluster.pods[0], "/e/a", &old).await;
    for pod in &cluster.pods[1..] {
        assert_kept(pod, "/e/a", &old).await;
    }
    cluster.pods[0].heal();
    for pod in &cluster.pods {
        gone(pod, "/e/a", &old).await;
        assert_kept(pod, "/e/b", &kept).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_while_redis_stands_still_counts_everywhere_when_it_goes_on() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    let old = cluster.warm("/e/a").await;
    cluster.redis.stop_process();
    queued(&cluster.pods[0], url("/e/a")).await;
    assert_new(&cluster.pods[0], "/e/a", &old).await;
    // An unsafe request is answered too, and counts here.
    let before = [cluster.pods[1].get("/e/b").await.text()];
    let put = cluster.pods[1].proxy.fetch("PUT", "/e/b", &[("Content-Length", "0")]).await;
    put.assert_status(200);
    assert_new(&cluster.pods[1], "/e/b", &before).await;
    cluster.redis.continue_process();
    for pod in &cluster.pods {
        gone(pod, "/e/a", &old).await;
    }
    cluster.all_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_while_redis_is_down_counts_everywhere_when_it_is_back() {
    let origin = origin().await;
    let mut cluster = Shape::of(origin.url(), 3).start().await;
    let old = cluster.warm("/e/a").await;
    cluster.redis.kill();
    for pod in &cluster.pods {
        pod.disconnected().await;
    }
    queued(&cluster.pods[0], url("/e/a")).await;
    assert_new(&cluster.pods[0], "/e/a", &old).await;
    cluster.redis.restart().await;
    for pod in &cluster.pods {
        gone(pod, "/e/a", &old).await;
    }
    cluster.all_live().await;
    for pod in &cluster.pods {
        assert_new(pod, "/e/a", &old).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_cut_off_applies_what_it_has_missed() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).link(2).start().await;
    let paths = ["/e/a", "/e/b", "/e/c", "/e/kept"];
    let mut old = Vec::new();
    for path in paths {
        old.push(cluster.warm(path).await);
    }
    let away = &cluster.pods[2];
    away.cut().await;
    let mut last = Value::Null;
    for path in &paths[..3] {
        last = cluster.pods[0].purge(url(path)).await;
    }
    away.heal();
    away.caught_up(last["seq"].as_u64().expect("a sequence")).await;
    for (path, old) in paths.iter().zip(&old).take(3) {
        assert_new(away, path, old).await;
    }
    assert_kept(away, "/e/kept", &old[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_before_the_log_was_trimmed_is_void() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).events_max(10).link(2).start().await;
    let old = cluster.warm("/e/a").await;
    let other = cluster.warm("/e/b").await;
    let away = &cluster.pods[2];
    away.cut().await;
    // Somewhere among them is the one that counts; it will not be in the log any more.
    cluster.pods[0].purge(url("/e/a")).await;
    let mut last = Value::Null;
    for n in 0..50 {
        last = cluster.pods[n % 2].purge(json!({"tag": format!("t{n}")})).await;
    }
    assert_new(&cluster.pods[0], "/e/a", &old).await;
    away.heal();
    away.caught_up(last["seq"].as_u64().expect("a sequence")).await;
    assert_new(away, "/e/a", &old).await;
    // It cannot know what else was purged.
    assert_new(away, "/e/b", &other).await;
    // It is in order again: what it stores now, it keeps.
    let now = away.store("/e/z").await;
    assert_eq!(away.get("/e/z").await.assert_hit().text(), now);
}

/// Redis forgets everything, in this way. What was purged stays purged, and what was stored before
/// is not taken for valid: there may have been purges that nobody can know of any more.
async fn assert_forgetting_is_harmless(restart: bool) {
    let origin = origin().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/e/held", move |r| {
        let reply = Reply::cached("max-age=600", format!("held {}", r.nth));
        if r.nth == 1 { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let mut cluster = Shape::of(origin.url(), 3).start().await;
    let purged = cluster.warm("/e/purged").await;
    let stored = cluster.warm("/e/stored").await;
    let mut early = cluster.pods[1].proxy.connect().await;
    early.request("GET", "/e/held", &[]).await;
    origin.arrived("/e/held", 1).await;
    cluster.pods[0].purge_all(url("/e/purged"), "5s").await;
    cluster.pods[0].purge_all(url("/e/held"), "5s").await;
    if restart {
        cluster.redis.restart().await;
    } else {
        assert_eq!(cluster.redis.cli(&["FLUSHALL"]).await, "OK");
    }
    gate.open();
    early.response("GET").await.assert_is(200, "held 1");
    for round in 0..2 {
        for pod in &cluster.pods {
            assert_new(pod, "/e/purged", &purged).await;
            assert_ne!(pod.get("/e/held").await.text(), "held 1", "{} round {round}", pod.name);
        }
        for pod in &cluster.pods {
            gone(pod, "/e/stored", &stored).await;
        }
        cluster.all_live().await;
    }
    for pod in &cluster.pods {
        assert_new(pod, "/e/stored", &stored).await;
    }
    // And all works on.
    let again = cluster.warm("/e/again").await;
    cluster.pods[2].purge_all(url("/e/again"), "5s").await;
    for pod in &cluster.pods {
        assert_new(pod, "/e/again", &again).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flushing_redis_brings_nothing_back() {
    assert_forgetting_is_harmless(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarting_redis_empty_brings_nothing_back() {
    assert_forgetting_is_harmless(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_and_grew_again_is_not_taken_for_the_old_one() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).link(2).start().await;
    let old = cluster.warm("/e/a").await;
    let away = &cluster.pods[2];
    away.cut().await;
    cluster.pods[0].purge(url("/e/a")).await;
    assert_eq!(cluster.redis.cli(&["FLUSHALL"]).await, "OK");
    // The new log is longer than the old one was.
    for n in 0..30 {
        cluster.pods[0].purge(json!({"tag": format!("t{n}")})).await;
    }
    away.heal();
    eventually("it hears the log", || async { away.connected().await.then_some(()) }).await;
    gone(away, "/e/a", &old).await;
    // Nor does it come back with what is in the log after that.
    cluster.pods[0].purge_all(json!({"tag": "last"}), "10s").await;
    assert_new(away, "/e/a", &old).await;
}
