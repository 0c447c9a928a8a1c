//! Bodies flow: nothing waits for the whole, nothing broken is kept.

use std::time::Duration;

use crate::support::{
    End, Gate, Origin, Proxy, Reply, Script, Setup, chunk, eventually, head, last_chunk,
};

/// The first part, the gate, the rest.
fn held(gate: &Gate, control: &str) -> Script {
    Script::new()
        .send(head(200, &[("Cache-Control", control), ("Transfer-Encoding", "chunked")]))
        .send(chunk("first "))
        .gate(gate)
        .send(chunk("rest"))
        .send(last_chunk(&[]))
}

async fn assert_streams(control: &str, method: &str) {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/s", held(&gate, control));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request(method, "/s", &[("Content-Length", "0")]).await;
    let head = client.final_head().await;
    assert_eq!(head.word(1), "200");
    client.until("first ").await;
    gate.open();
    client.until("rest").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_streams_while_the_origin_holds_the_rest() {
    assert_streams("max-age=60", "GET").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncacheable_response_streams_while_the_origin_holds_the_rest() {
    assert_streams("no-store", "GET").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_response_to_a_post_streams_while_the_origin_holds_the_rest() {
    assert_streams("max-age=60", "POST").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_miss_is_a_whole_hit_afterwards() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    gate.open();
    origin.always("/s", held(&gate, "max-age=60"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(200, "first rest");
    proxy.get("/s").await.assert_is(200, "first rest").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_streams_to_the_origin() {
    let origin = Origin::start().await;
    origin.on_head("/up", |_| {
        // Answers after the first part, before the rest has been sent.
        Script::new()
            .send(head(200, &[("Transfer-Encoding", "chunked")]))
            .send(chunk("early "))
            .read_body()
            .send(chunk("late"))
            .send(last_chunk(&[]))
    });
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\n01234").await;
    client.final_head().await;
    client.until("early ").await;
    client.send("56789").await;
    client.until("late").await;
    origin.until("the whole body", || origin.last("/up").body == b"0123456789").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_unharmed_in_both_directions() {
    let origin = Origin::start().await;
    origin.on("/echo", |r| Reply::cached("max-age=60", &r.body));
    let body: Vec<u8> =
        (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let large = body.clone();
    origin.on("/large", move |_| Reply::cached("max-age=60", &large));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client
        .send(format!(
            "POST /echo HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await
        .send(&body)
        .await;
    let echoed = client.response("POST").await;
    assert_eq!(echoed.status, 200);
    assert!(echoed.body == body, "{} bytes came back changed", echoed.body.len());
    for _ in 0..2 {
        let large = client.get("/large", &[]).await;
        assert!(large.body == body, "{} bytes, {:?}", large.body.len(), large.end);
    }
    assert_eq!(origin.hits("/large"), 1);
}

async fn assert_truncation(script: Script) {
    let origin = Origin::start().await;
    origin.always("/t", script);
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request("GET", "/t", &[]).await;
    let cut = client.response("GET").await;
    assert_eq!(cut.status, 200, "{cut:#?}");
    assert_eq!(cut.end, End::Truncated, "a cut response looked whole: {cut:#?}");
    assert!("half of it".starts_with(&cut.text()), "{cut:#?}");
    assert_eq!(origin.hits("/t"), 1, "the request was repeated");

    let again = proxy.get("/t").await;
    assert!(!again.cache().has("hit"), "a cut response was stored: {again:#?}");
    assert_eq!(origin.hits("/t"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_response_cut_short_is_passed_on_as_such_and_not_stored() {
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", "100")];
    assert_truncation(Script::new().send(head(200, &lines)).send("half of it").close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_response_cut_short_is_passed_on_as_such_and_not_stored() {
    let lines = [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")];
    let cut = Script::new().send(head(200, &lines)).send(chunk("half of it"));
    assert_truncation(cut.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_ends_in_a_reset_is_passed_on_as_cut_and_not_stored() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", "100")];
    origin.on("/t", move |r| match r.nth {
        1 => Script::new().send(head(200, &lines)).send("half of it").gate(&held).reset(),
        _ => Reply::ok("whole").into(),
    });
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request("GET", "/t", &[]).await;
    assert_eq!(client.final_head().await.word(1), "200");
    // A reset discards what nobody has read yet: the client has it before.
    client.until("half of it").await;
    gate.open();
    let (rest, _) = client.rest_until_close().await;
    assert_eq!(String::from_utf8_lossy(&rest), "", "90 bytes are missing");
    assert_eq!(origin.hits("/t"), 1, "the request was repeated");

    let again = proxy.get("/t").await;
    again.assert_is(200, "whole");
    assert!(!again.cache().has("hit"), "a cut response was stored: {again:#?}");
    assert_eq!(origin.hits("/t"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_delimited_response_is_passed_on_whole() {
    let origin = Origin::start().await;
    let plain = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nuntil the end";
    origin.always("/c", Script::new().send(plain).close());
    let proxy = Proxy::start(&origin).await;
    proxy.get("/c").await.assert_is(200, "until the end");
    proxy.get("/c").await.assert_is(200, "until the end");
}

/// A good entry that is stale at once, then these answers: the good one stays.
async fn assert_good_entry_survives(bad: impl Into<Script>) {
    let origin = Origin::start().await;
    let bad = bad.into();
    let good = || Reply::cached("max-age=0, stale-if-error=600", "good").header("ETag", "\"v1\"");
    origin.on("/g", move |r| match r.nth {
        1 => good().into(),
        2 => bad.clone(),
        _ if r.header("if-none-match") == Some("\"v1\"") => {
            Reply::new(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=60").into()
        }
        _ => Script::from(Reply::cached("no-store", "the good entry is gone")),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/g").await.assert_is(200, "good");
    // Whatever this one becomes: an error, a cut body, or the stale entry.
    let mut client = proxy.connect().await;
    client.request("GET", "/g", &[]).await;
    let _ = client.response("GET").await;
    eventually("the bad answer was given", || async { (origin.hits("/g") >= 2).then_some(()) })
        .await;
    proxy.get("/g").await.assert_is(200, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_stale_entry_is_not_replaced_by_a_cut_response() {
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", "100")];
    let cut = Script::new().send(head(200, &lines)).send("half of it").close();
    assert_good_entry_survives(cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_stale_entry_is_not_replaced_by_an_error() {
    for status in [500, 502, 503, 504] {
        let error = Reply::new(status).header("Cache-Control", "max-age=60").body("oops");
        assert_good_entry_survives(error).await;
    }
}

async fn assert_back_pressure(control: &str, length: &str) {
    let origin = Origin::start().await;
    let lines = [("Cache-Control", control), ("Content-Length", length)];
    let flood = Script::new().send(head(200, &lines)).flood();
    origin.always("/f", flood);
    let proxy = Setup::of(&origin).config("memory: {bytesMax: 64MiB, objectBytesMax: 1MiB}");
    let proxy = proxy.start().await;
    let mut client = proxy.connect().await;
    client.request("GET", "/f", &[]).await;
    client.final_head().await;
    // The client reads no further: soon the origin must not get rid of any more.
    let mut last = 0;
    let mut still = 0;
    while still < 5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = origin.flooded();
        assert!(now < 48 << 20, "{now} bytes went into the proxy for a client that reads none");
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
    // And once the client is gone, so is the upstream transfer.
    drop(client);
    origin.peer_left("/f").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_the_origin_when_passing() {
    assert_back_pressure("no-store", "10000000000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_the_origin_when_the_object_is_too_large_to_store() {
    assert_back_pressure("max-age=60", "10000000000").await;
}
