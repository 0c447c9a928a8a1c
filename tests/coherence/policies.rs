//! Pods with different policies on one log, as during a rollout: each finds out by its own policy
//! what an event of another one concerns.

use serde_json::json;

use crate::cluster::{Cluster, Shape};
use crate::support::{Origin, Reply, eventually};

/// Queries as they are written, and names of a service that are not known to be one.
const OLD: &str = "
routes:
  - {name: eventual, match: {path: {prefix: /e}}, cache: {redis: {enabled: false}}}
  - {name: causal, match: {path: {prefix: /c}}, cache: {consistency: causal, redis: {enabled: false}}}
  - {name: strong, match: {path: {prefix: /s}}, cache: {consistency: strong, redis: {enabled: false}}}
";
/// Queries in order and without what marketing adds, and one service by two names.
const NEW: &str = "
aliases: {shop.test: [store.test]}
routes:
  - {name: eventual, match: {path: {prefix: /e}}, cache: {redis: {enabled: false}, key: {query: {sort: true, ignore: [utm_*]}}}}
  - {name: causal, match: {path: {prefix: /c}}, cache: {consistency: causal, redis: {enabled: false}, key: {query: {sort: true, ignore: [utm_*]}}}}
  - {name: strong, match: {path: {prefix: /s}}, cache: {consistency: strong, redis: {enabled: false}, key: {query: {sort: true, ignore: [utm_*]}}}}
";

/// Reads are answered by their number and may be stored; writes get a 204.
async fn rollout() -> (Origin, Cluster) {
    let origin = Origin::start().await;
    origin.on("*", |r| match r.method() {
        "GET" => Reply::cached("max-age=600", r.nth.to_string()),
        _ => Reply::new(204),
    });
    let cluster = Shape::of(origin.url(), 2).policy(0, OLD).policy(1, NEW).start().await;
    (origin, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_meets_what_a_pod_with_another_policy_stored() {
    let (_origin, cluster) = rollout().await;
    for (asked, other) in [(0, 1), (1, 0)] {
        let target = format!("/e/{asked}?utm_x=1&b=2&a=1");
        let old = cluster.pods[other].store(&target).await;
        let url = json!({"url": format!("http://shop.test{target}")});
        let answer = cluster.pods[asked].purge_all(url, "5s").await;
        assert_eq!(answer["missing"], json!([]), "{answer}");
        let new = cluster.pods[other].get(&target).await;
        assert_ne!(new.text(), old, "{asked}: {new:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strong_write_meets_what_a_pod_with_another_policy_stored() {
    let (_origin, cluster) = rollout().await;
    for (writer, other) in [(0, 1), (1, 0)] {
        for _ in 0..5 {
            let target = format!("/s/{writer}?utm_x=1&b=2&a=1");
            let old = cluster.pods[other].store(&target).await;
            let length = [("content-length", "0")];
            let written = cluster.pods[writer].proxy.fetch("POST", &target, &length).await;
            written.assert_status(204);
            let new = cluster.pods[other].get(&target).await;
            assert_ne!(new.text(), old, "{writer}: {new:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_write_in_a_pod_with_another_policy() {
    let (_origin, cluster) = rollout().await;
    for (writer, other) in [(0, 1), (1, 0)] {
        let target = format!("/c/{writer}?utm_x=1&b=2&a=1");
        let old = cluster.pods[other].store(&target).await;
        let length = [("content-length", "0")];
        let written = cluster.pods[writer].proxy.fetch("POST", &target, &length).await;
        written.assert_status(204);
        let session = written.header("outrigger-session").expect("a session").to_owned();
        let fields = [("outrigger-session", session.as_str())];
        let new = cluster.pods[other].proxy.fetch("GET", &target, &fields).await;
        assert_ne!(new.text(), old, "{writer}: {new:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_an_alias_meets_what_a_pod_without_it_stored() {
    let (_origin, cluster) = rollout().await;
    for name in ["shop.test", "store.test"] {
        let host = [("Host", name)];
        let stored = async || {
            let response = cluster.pods[0].proxy.fetch("GET", "/e/alias", &host).await;
            response.assert_status(200);
            response
        };
        let old = stored().await.text();
        stored().await.assert_is(200, &old).assert_hit();
        let fields = [("Host", "store.test"), ("content-length", "0")];
        let written = cluster.pods[1].proxy.fetch("POST", "/e/alias", &fields).await;
        written.assert_status(204);
        eventually(&format!("what is stored as {name} is purged"), || async {
            (stored().await.text() != old).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strong_write_to_a_very_long_url_meets_what_a_pod_with_another_policy_stored() {
    let (_origin, cluster) = rollout().await;
    for (writer, other) in [(0, 1), (1, 0)] {
        let target = format!("/s/{writer}?utm_x=1&b={}&a=1", "x".repeat(3000));
        let beside = format!("/s/{writer}b");
        let old = cluster.pods[other].store(&target).await;
        cluster.pods[other].store(&beside).await;
        let length = [("content-length", "0")];
        let written = cluster.pods[writer].proxy.fetch("POST", &target, &length).await;
        written.assert_status(204);
        let new = cluster.pods[other].get(&target).await;
        assert_ne!(new.text(), old, "{writer}: {new:#?}");
        cluster.pods[other].get(&beside).await.assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_meets_what_a_pod_with_other_aliases_stored() {
    let (_origin, cluster) = rollout().await;
    for (asked, other) in [(0, 1), (1, 0)] {
        let get = async || {
            let target = format!("/e/{asked}");
            cluster.pods[other].proxy.fetch("GET", &target, &[("Host", "store.test")]).await
        };
        let old = get().await.text();
        get().await.assert_is(200, &old).assert_hit();
        let prefix = json!({"prefix": format!("http://store.test/e/{asked}")});
        let answer = cluster.pods[asked].purge_all(prefix, "5s").await;
        assert_eq!(answer["missing"], json!([]), "{answer}");
        let new = get().await;
        assert_ne!(new.text(), old, "{asked}: {new:#?}");
    }
}
