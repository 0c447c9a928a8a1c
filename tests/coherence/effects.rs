//! What purges and writes through one pod do in the others, and what is written down about them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Shape};
use crate::support::{Origin, Reply, eventually};

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| match (r.method(), r.header("if-none-match")) {
        ("GET", Some("\"v1\"")) => {
            Reply::new(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=600")
        }
        ("GET", _) => Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth))
            .header("ETag", "\"v1\"")
            .header("Cache-Tag", "red"),
        _ => Reply::ok("done"),
    });
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_method_through_one_pod_counts_in_the_others() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    for root in ["/e", "/c", "/s"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let path = format!("{root}/{method}");
            let old = cluster.warm(&path).await;
            let writer = &cluster.pods[0].proxy;
            let done = writer.fetch(method, &path, &[("Content-Length", "0")]).await;
            done.assert_is(200, "done");
            let now = cluster.pods[0].get(&path).await.text();
            assert!(!old.contains(&now), "{method} {path}: {now}");
            for pod in &cluster.pods[1..] {
                eventually(&format!("{} has heard of {method} {path}", pod.name), || async {
                    (!old.contains(&pod.get(&path).await.text())).then_some(())
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_unsafe_method_counts_nowhere() {
    let origin = origin().await;
    origin.on("/e/a", |r| match r.method() {
        "GET" => Reply::cached("max-age=600", "kept"),
        _ => Reply::new(409),
    });
    let cluster = Shape::of(origin.url(), 3).start().await;
    cluster.warm("/e/a").await;
    cluster.pods[0]
        .proxy
        .fetch("POST", "/e/a", &[("Content-Length", "0")])
        .await
        .assert_status(409);
    cluster.pods[0].purge_all(json!({"tag": "nobody"}), "5s").await;
    for pod in &cluster.pods {
        pod.get("/e/a").await.assert_is(200, "kept").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_makes_entries_stale_in_all_pods() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    for (n, what) in [
        json!({"tag": "red", "mode": "soft"}),
        json!({"prefix": "http://shop.test/e/", "mode": "soft"}),
        json!({"all": true, "mode": "soft"}),
    ]
    .into_iter()
    .enumerate()
    {
        // One path for each pod: what one has validated, another may take from Redis.
        let paths: Vec<_> = (0..3).map(|pod| format!("/e/soft-{n}-{pod}")).collect();
        let mut old = Vec::new();
        for path in &paths {
            old.push(cluster.warm(path).await);
        }
        let answer = cluster.pods[n % 3].purge_all(what.clone(), "5s").await;
        assert_eq!(answer["missing"], json!([]), "{answer}");
        for ((pod, path), old) in cluster.pods.iter().zip(&paths).zip(&old) {
            let hits = origin.hits(path);
            let validated = pod.get(path).await.text();
            assert!(old.contains(&validated), "{validated} was not in {old:?}");
            assert_eq!(origin.hits(path), hits + 1, "{} did not ask after {what}", pod.name);
            assert_eq!(origin.last(path).header("if-none-match"), Some("\"v1\""), "{what}");
            pod.get(path).await.assert_is(200, validated).assert_hit();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_of_a_url_is_seen_by_a_pod_that_starts_later() {
    let origin = origin().await;
    let mut cluster = Shape::of(origin.url(), 2).start().await;
    cluster.warm("/e/a").await;
    let soft = json!({"url": "http://shop.test/e/a", "mode": "soft"});
    cluster.pods[0].purge_all(soft, "5s").await;
    let new = cluster.add().await;
    let hits = origin.hits("/e/a");
    cluster.pods[new].get("/e/a").await.assert_status(200);
    assert_eq!(origin.hits("/e/a"), hits + 1, "taken from Redis without asking");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_purges_says_who_why_and_when_in_every_pod() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    let before = unix_millis();
    let first = json!({"tag": "red", "mode": "soft", "reason": "prices changed"});
    let first = cluster.pods[0].purge_all(first, "5s").await["seq"].clone();
    let put = cluster.pods[1].proxy.fetch("PUT", "/e/a?b=1", &[("Content-Length", "0")]).await;
    put.assert_status(200);
    let third = json!({"prefix": "http://shop.test/e/", "reason": "\"quoted\" ünïcode"});
    let third = cluster.pods[2].purge_all(third, "5s").await["seq"].clone();
    cluster.level().await;
    let after = unix_millis();
    for pod in &cluster.pods {
        let listed = list(&cluster, pod).await;
        let seqs: Vec<_> = listed.iter().map(|p| p["seq"].as_u64().unwrap()).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {seqs:?}");
        let find = |seq: &Value| listed.iter().find(|p| &p["seq"] == seq).expect("in the list");
        let soft = find(&first);
        assert_eq!(soft["matcher"], json!({"tag": "red"}), "{soft}");
        assert_eq!(soft["mode"], "soft", "{soft}");
        assert_eq!(soft["by"], "admin", "{soft}");
        assert_eq!(soft["pod"], "pod-0", "{soft}");
        assert_eq!(soft["reason"], "prices changed", "{soft}");
        let at = soft["atUnixMillis"].as_u64().expect("a time");
        assert!((before - 1000..=after + 1000).contains(&at), "{before} {at} {after}");
        let prefix = find(&third);
        assert_eq!(prefix["matcher"], json!({"prefix": "http://shop.test/e/"}), "{prefix}");
        assert_eq!(prefix["mode"], "hard", "{prefix}");
        assert_eq!(prefix["pod"], "pod-2", "{prefix}");
        assert_eq!(prefix["reason"], "\"quoted\" ünïcode", "{prefix}");
        let write = listed.iter().find(|p| p["by"] != "admin").expect("the write");
        assert_eq!(write["matcher"], json!({"url": "http://shop.test/e/a?b=1"}), "{write}");
        assert_eq!(write["pod"], "pod-1", "{write}");
    }
}

async fn list(cluster: &Cluster, pod: &crate::cluster::Pod) -> Vec<Value> {
    pod.caught_up(cluster.pods[0].applied().await).await;
    let page = pod.proxy.admin("/purges").await;
    page.assert_status(200);
    let page: Value = serde_json::from_slice(&page.body).expect("JSON from /purges");
    page["purges"].as_array().expect("a list").clone()
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_millis() as u64
}
