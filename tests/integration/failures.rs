//! Upstreams that fail: what the client gets, and how soon.

use std::time::{Duration, Instant};

use crate::support::{End, Gate, Origin, Proxy, Reply, Script, Setup, eventually, free_addr, head};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_502_quickly() {
    let proxy = Setup::upstream(format!("http://{}", free_addr())).start().await;
    let began = Instant::now();
    let response = proxy.get("/a").await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    response.assert_status(502);
    assert!(response.cache().has("fwd"), "{response:#?}");
    assert!(response.cache().has("detail"), "{response:#?}");
    assert!(!response.cache().has("stored"), "{response:#?}");
    assert_ne!(response.end, End::Truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_comes_back_is_used_again() {
    let mut origin = Origin::start().await;
    let addr = origin.addr;
    let proxy = Proxy::start(&origin).await;
    origin.stop().await;
    proxy.get("/a").await.assert_status(502);
    let origin = Origin::start_at(addr).await;
    origin.always("/a", Reply::ok("back"));
    crate::support::eventually("the upstream is used again", || async {
        (proxy.get("/a").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_answers_is_504_after_first_byte_ms() {
    let origin = Origin::start().await;
    origin.always("/n", Script::new().hang());
    let timeouts = "timeouts: {firstByteMs: 400}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).start().await;
    let began = Instant::now();
    let response = proxy.get("/n").await;
    let took = began.elapsed();
    response.assert_status(504);
    assert!(response.cache().has("detail"), "{response:#?}");
    assert!(took >= Duration::from_millis(350), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    origin.peer_left("/n").await;
    assert_eq!(origin.hits("/n"), 1, "a time-out was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_without_an_answer_is_502() {
    let origin = Origin::start().await;
    origin.always("/c", Script::new().close());
    origin.always("/r", Script::new().reset());
    let proxy = Proxy::start(&origin).await;
    for path in ["/c", "/r"] {
        proxy.get(path).await.assert_status(502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_flowing_is_cut_after_between_bytes_ms() {
    let origin = Origin::start().await;
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", "100")];
    origin.always("/b", Script::new().send(head(200, &lines)).send("some").hang());
    let timeouts = "timeouts: {betweenBytesMs: 400}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).start().await;
    let began = Instant::now();
    let response = proxy.get("/b").await;
    assert_eq!(response.end, End::Truncated, "{response:#?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let hits = origin.hits("/b");
    proxy.get("/b").await;
    assert!(origin.hits("/b") > hits, "a cut body was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    let origin = Origin::start().await;
    origin.on("/p", |r| if r.nth == 1 { Script::new().close() } else { Reply::ok("twice").into() });
    origin.always("/warm", Reply::ok("warm"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/warm").await;
    let mut client = proxy.connect().await;
    client.send("POST /p HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody").await;
    client.response("POST").await.assert_status(502);
    assert_eq!(origin.hits("/p"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_the_proxy_made_is_not_stored() {
    let origin = Origin::start().await;
    origin.on("/e", |r| match r.nth {
        1 => Script::new().reset(),
        _ => Reply::cached("max-age=60", "fine").into(),
    });
    let policy = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                  cache: {ttl: {default: 60s, status: {502: 60s, 504: 60s}}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let _ = proxy.get("/e").await;
    proxy.get("/e").await.assert_is(200, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_have_a_shorter_time_out() {
    let origin = Origin::start().await;
    origin.always("/quick/n", Script::new().hang());
    let policy = "routes:\n  - name: quick\n    match: {path: {prefix: /quick}}\n    \
                  guard: {timeout: 300ms}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let began = Instant::now();
    proxy.get("/quick/n").await.assert_status(504);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_mid_body_cancels_the_upstream_transfer() {
    for control in ["no-store", "max-age=60"] {
        let origin = Origin::start().await;
        let lines = [("Cache-Control", control), ("Content-Length", "10000000000")];
        origin.always("/f", Script::new().send(head(200, &lines)).flood());
        let proxy = Proxy::start(&origin).await;
        let mut client = proxy.connect().await;
        client.request("GET", "/f", &[]).await;
        client.final_head().await;
        client.exactly(100_000).await;
        client.reset();
        origin.peer_left("/f").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_head_cancels_a_request_that_nobody_else_wants() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/p", Script::new().gate(&gate).reply(Reply::ok("late")));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let request = "GET /p HTTP/1.1\r\nHost: shop.test\r\nCache-Control: no-store\r\n\r\n";
    client.send(request).await;
    origin.arrived("/p", 1).await;
    client.reset();
    origin.peer_left("/p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_invalidates_although_its_client_has_left() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/p", move |r| match r.method() {
        "GET" => Reply::cached("max-age=60", format!("{}", r.nth)).into(),
        _ => Script::new().gate(&held).reply(Reply::ok("done")),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/p").await.assert_is(200, "1");
    proxy.get("/p").await.assert_hit();
    let mut client = proxy.connect().await;
    client.send("POST /p HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n").await;
    origin.arrived("/p", 2).await;
    client.reset();
    gate.open();
    eventually("what was stored is purged", || async {
        (proxy.get("/p").await.text() == "3").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_mid_upload_ends_the_upstream_request() {
    let origin = Origin::start().await;
    origin.always("/up", Reply::ok("whole"));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nsome").await;
    origin.arrived("/up", 1).await;
    client.reset();
    // The origin must not take the half for the whole.
    origin.peer_left("/up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_at_once_leaves_the_client_its_head_every_time() {
    for control in ["no-store", "max-age=60"] {
        let origin = Origin::start().await;
        let lines = [("Content-Length", "100"), ("Cache-Control", control)];
        let cut = Script::new().send(crate::support::head(200, &lines)).send("some");
        origin.always("/reset", cut.clone().reset());
        origin.always("/close", cut.close());
        let guard = "routes: [{name: all, guard: {breaker: {enabled: false}}}]";
        let proxy = Setup::of(&origin).policy(guard).start().await;
        for nth in 0..30 {
            for path in ["/reset", "/close"] {
                let mut client = proxy.connect().await;
                client.request("GET", path, &[]).await;
                let head = client.final_head().await;
                // A reset may overtake the head on its way from the upstream.
                assert!(head.start.contains(" 200 ") || head.start.contains(" 502 "), "{nth}");
                assert!(path != "/close" || head.start.contains(" 200 "), "{control} {nth}");
            }
        }
    }
}
