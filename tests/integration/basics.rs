//! A miss, a hit, and what they say about themselves.

use std::time::Duration;

use crate::support::{End, Gate, Origin, Proxy, Reply, Script, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_stored_and_then_hit_with_age() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello").header("X-Mine", "kept"));
    let proxy = Proxy::start(&origin).await;

    let miss = proxy.get("/a").await;
    miss.assert_is(200, "hello").assert_fwd("uri-miss");
    assert!(miss.cache().has("stored"), "{miss:#?}");
    assert_eq!(miss.cache().get("fwd-status"), Some("200"), "{miss:#?}");

    let hit = proxy.get("/a").await;
    hit.assert_is(200, "hello").assert_hit();
    assert!(hit.age().is_some_and(|age| age <= 60), "{hit:#?}");
    let ttl: i64 = hit.cache().get("ttl").expect("a ttl").parse().expect("a number");
    assert!((1..=60).contains(&ttl), "{hit:#?}");
    assert_eq!(hit.header("x-mine"), Some("kept"));
    assert!(!hit.cache().has("fwd"), "{hit:#?}");
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn age_grows_and_freshness_ends() {
    let origin = Origin::start().await;
    origin.on("/short", |r| Reply::cached("max-age=2", format!("body {}", r.nth)));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/short").await.assert_is(200, "body 1");

    let aged = eventually("a hit with an age of at least one second", || async {
        let hit = proxy.get("/short").await;
        assert!(hit.cache().has("hit"), "expired before its time: {hit:#?}");
        hit.age().is_some_and(|age| age >= 1).then_some(hit)
    });
    aged.await.assert_is(200, "body 1");

    let renewed = eventually("the entry expires", || async {
        let response = proxy.get("/short").await;
        (!response.cache().has("hit")).then_some(response)
    });
    renewed.await.assert_is(200, "body 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_that_the_origin_sent_counts() {
    let origin = Origin::start().await;
    origin.always("/old", Reply::cached("max-age=100", "x").header("Age", "40"));
    origin.on("/spent", |r| Reply::cached("max-age=100", r.nth.to_string()).header("Age", "200"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/old").await;
    let hit = proxy.get("/old").await;
    hit.assert_hit();
    assert!(hit.age().is_some_and(|age| (40..=60).contains(&age)), "{hit:#?}");
    proxy.get("/spent").await.assert_is(200, "1");
    proxy.get("/spent").await.assert_is(200, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_from_a_stored_get() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "twelve bytes"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await;

    let mut client = proxy.connect().await;
    client.request("HEAD", "/a", &[]).await;
    let head = client.response("HEAD").await;
    head.assert_status(200).assert_hit();
    assert_eq!(head.header("content-length"), Some("12"));
    // A body after a HEAD would be read as the next response.
    client.get("/a", &[]).await.assert_is(200, "twelve bytes").assert_hit();
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_response_is_never_served_as_the_body_of_a_get() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "content"));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("HEAD", "/a", &[]).await.assert_status(200);
    proxy.get("/a").await.assert_is(200, "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/slow", Script::new().gate(&gate).reply(Reply::ok("slow")));
    origin.always("/fast", Reply::cached("max-age=60", "fast"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/fast").await;

    let mut client = proxy.connect().await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client.send([one("/slow"), one("/fast"), one("/slow"), one("/fast")].concat()).await;
    origin.arrived("/slow", 1).await;
    assert!(client.buffered().is_empty());
    gate.open();
    for expected in ["slow", "fast", "slow", "fast"] {
        client.response("GET").await.assert_is(200, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_holds_host_path_and_query() {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        let host = r.header("host").unwrap_or("none").to_owned();
        Reply::cached("max-age=60", format!("{host} {}", r.target()))
    });
    let proxy = Proxy::start(&origin).await;
    for (host, path) in [
        ("a.test", "/x"),
        ("b.test", "/x"),
        ("a.test", "/x?q=1"),
        ("a.test", "/X"),
        ("a.test:81", "/x"),
    ] {
        let expected = format!("{host} {path}");
        let first = proxy.fetch("GET", path, &[("Host", host)]).await;
        first.assert_is(200, &expected);
        let again = proxy.fetch("GET", path, &[("Host", host)]).await;
        again.assert_is(200, &expected).assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equivalent_urls_share_an_entry() {
    let origin = Origin::start().await;
    origin.always("/x", Reply::cached("max-age=60", "x"));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/x", &[("Host", "Shop.Test")]).await.assert_status(200);
    proxy.fetch("GET", "/x", &[("Host", "shop.test")]).await.assert_hit();
    proxy.fetch("GET", "/x", &[("Host", "shop.test:80")]).await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_form_target_is_the_same_resource() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    origin.always("/", Reply::cached("max-age=60", "root"));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("GET http://shop.test/a HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    client.response("GET").await.assert_is(200, "hello");
    proxy.get("/a").await.assert_hit();

    // The authority of the target wins over the Host field (RFC 9112, 3.2.2).
    client.send("GET http://other.test/a HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let other = client.response("GET").await;
    other.assert_fwd("uri-miss");
    assert_eq!(origin.last("/a").header("host"), Some("other.test"));

    // Without a path it means the root.
    client.send("GET http://shop.test HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    client.response("GET").await.assert_is(200, "root");
    assert!(origin.requests("/a").iter().all(|r| r.target() == "/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_a_body_without_chunks() {
    let origin = Origin::start().await;
    origin.always(
        "/c",
        Script::new()
            .send(crate::support::head(200, &[("Transfer-Encoding", "chunked")]))
            .send(crate::support::chunk("one "))
            .send(crate::support::chunk("two"))
            .send(crate::support::last_chunk(&[])),
    );
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("GET /c HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    let response = client.response("GET").await;
    response.assert_is(200, "one two");
    assert_ne!(response.end, End::Chunked, "HTTP/1.0 knows no chunks: {response:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_connections_are_reused() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::ok(r.target()).header("Cache-Control", "no-store"));
    let proxy = Proxy::start(&origin).await;
    for n in 0..20 {
        let path = format!("/{n}");
        proxy.get(&path).await.assert_is(200, &path);
    }
    let mut used: Vec<_> = origin.all_requests().iter().map(|r| r.connection).collect();
    used.sort_unstable();
    used.dedup();
    assert!(used.len() < 10, "20 requests in a row took {} connections", used.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_the_origin_closed_costs_no_error() {
    let origin = Origin::start().await;
    origin.always("/a", Script::new().reply(Reply::ok("once")).close());
    let proxy = Proxy::start(&origin).await;
    for _ in 0..20 {
        proxy.get("/a").await.assert_is(200, "once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
