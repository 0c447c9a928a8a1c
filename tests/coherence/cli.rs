//! `outrigger purge` and `outrigger cache`: the admin port from a terminal.

use std::net::SocketAddr;
use std::process::Output;

use serde_json::json;

use crate::cluster::{Cluster, Shape};
use crate::support::{Origin, Reply, free_addr, outrigger};

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth))
            .header("ETag", "\"v1\"")
            .header("Cache-Tag", "red")
    });
    origin
}

/// How a command ended and what it said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs a command against an admin port; the origin must be able to work meanwhile.
async fn run(admin: SocketAddr, words: &[&str]) -> Said {
    let mut command = outrigger();
    command.args(words).args(["--admin", &admin.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stdout, stderr } = output.expect("a task").expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

async fn purge(cluster: &Cluster, words: &[&str]) -> Said {
    run(cluster.pods[0].proxy.admin, &[&["purge"], words].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_matcher_purges_in_all_pods() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 2).start().await;
    for words in [
        ["--url", "http://shop.test/e/a"].as_slice(),
        &["--tag", "red"],
        &["--prefix", "http://shop.test/e/"],
        &["--all"],
    ] {
        let old = cluster.warm("/e/a").await;
        let said = purge(&cluster, &[words, &["--wait", "all"]].concat()).await;
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        assert!(!said.out.trim().is_empty(), "{words:?}: {said:?}");
        for pod in &cluster.pods {
            let now = pod.get("/e/a").await.text();
            assert!(!old.contains(&now), "{}: {words:?}: {now}", pod.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_keeps_what_can_be_validated() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 1).start().await;
    cluster.pods[0].store("/e/a").await;
    let words = ["--tag", "red", "--soft", "--wait", "all", "--reason", "prices changed"];
    let said = purge(&cluster, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
    cluster.pods[0].get("/e/a").await.assert_status(200);
    assert_eq!(origin.last("/e/a").header("if-none-match"), Some("\"v1\""));
    let page = cluster.pods[0].proxy.admin("/purges").await.text();
    assert!(page.contains("prices changed"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_wait_is_accepted() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 1).start().await;
    for wait in ["none", "appended", "all"] {
        let said = purge(&cluster, &["--tag", "x", "--wait", wait, "--timeout", "2s"]).await;
        assert_eq!(said.code, 0, "{wait}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_pods_are_named_and_are_a_failure() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 3).start().await;
    cluster.pods[2].pause().await;
    let said = purge(&cluster, &["--tag", "x", "--wait", "all", "--timeout", "300ms"]).await;
    assert_ne!(said.code, 0, "{said:?}");
    let all = format!("{}{}", said.out, said.err);
    assert!(all.contains("pod-2"), "{said:?}");
    assert!(!said.err.contains("panicked"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_waits_for_the_log_is_a_failure() {
    let origin = origin().await;
    let mut cluster = Shape::of(origin.url(), 1).start().await;
    cluster.redis.kill();
    cluster.pods[0].disconnected().await;
    let said = purge(&cluster, &["--tag", "x", "--wait", "all"]).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("queued"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_port_that_does_not_answer_is_named() {
    let nobody = free_addr();
    for words in [
        ["purge", "--all"].as_slice(),
        &["cache", "get", "http://shop.test/e/a"],
        &["cache", "stat"],
    ] {
        let said = run(nobody, words).await;
        assert_ne!(said.code, 0, "{words:?}: {said:?}");
        assert!(said.err.contains(&nobody.to_string()), "{words:?}: {said:?}");
        assert!(!said.err.contains("panicked"), "{words:?}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_refused() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 1).start().await;
    let old = cluster.pods[0].store("/e/a").await;
    for words in [
        [].as_slice(),
        &["--url", "http://shop.test/e/a", "--tag", "red"],
        &["--all", "--tag", "red"],
        &["--tag"],
        &["--url", "not a url"],
        &["--prefix", "not a url"],
        &["--tag", "red", "--wait", "forever"],
        &["--tag", "red", "--timeout", "soon"],
    ] {
        let said = purge(&cluster, words).await;
        assert_ne!(said.code, 0, "{words:?}: {said:?}");
        assert!(!said.err.trim().is_empty(), "{words:?}: {said:?}");
        assert!(!said.err.contains("panicked"), "{words:?}: {said:?}");
    }
    assert_eq!(cluster.pods[0].get("/e/a").await.assert_hit().text(), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_get_tells_what_is_stored() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 1).start().await;
    cluster.pods[0].store("/e/a").await;
    let admin = cluster.pods[0].proxy.admin;
    let asked = origin.all_requests().len();
    let said = run(admin, &["cache", "get", "http://shop.test/e/a"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.out.trim().is_empty(), "{said:?}");
    let unknown = run(admin, &["cache", "get", "http://shop.test/e/unknown"]).await;
    assert_ne!(unknown.out, said.out, "{unknown:?}");
    assert!(!unknown.err.contains("panicked"), "{unknown:?}");
    assert_eq!(origin.all_requests().len(), asked, "looking is not asking the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_stat_tells_about_redis_and_the_log() {
    let origin = origin().await;
    let cluster = Shape::of(origin.url(), 2).start().await;
    cluster.pods[0].purge_all(json!({"tag": "x"}), "5s").await;
    let said = run(cluster.pods[0].proxy.admin, &["cache", "stat"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    for word in ["redis", "log"] {
        assert!(said.out.to_lowercase().contains(word), "{word}: {said:?}");
    }
}
