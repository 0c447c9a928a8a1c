//! Upgrades: a tunnel after a 101 and never before.

use crate::support::{End, Gate, Origin, Proxy, Reply, Script, head};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";

fn switching() -> Vec<u8> {
    head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "x")])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_becomes_a_tunnel_after_101() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/ws", Script::new().gate(&gate).send(switching()).send("welcome").echo());
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    origin.arrived("/ws", 1).await;
    let seen = origin.last("/ws");
    assert_eq!(seen.header("upgrade"), Some("websocket"), "{seen:#?}");
    assert!(seen.head.lists("connection", "upgrade"), "{seen:#?}");
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    gate.open();

    let head = client.next_head().await;
    assert_eq!(head.word(1), "101", "{head:#?}");
    assert_eq!(head.get("upgrade"), Some("websocket"), "{head:#?}");
    assert!(head.lists("connection", "upgrade"), "{head:#?}");
    assert_eq!(head.get("sec-websocket-accept"), Some("x"), "{head:#?}");
    client.until("welcome").await;
    for text in ["\x01\x02 first", "\0\r\n\r\n second", "third"] {
        client.send(text).await;
        client.until(text).await;
    }
    let large = "0123456789".repeat(50_000);
    client.send(&large).await;
    assert_eq!(client.exactly(large.len()).await.len(), large.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_when_either_side_ends() {
    let origin = Origin::start().await;
    origin.always("/ws", Script::new().send(switching()).send("bye").close());
    origin.always("/ws2", Script::new().send(switching()).hang());
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.next_head().await.word(1), "101");
    assert_eq!(client.rest_until_close().await.0, b"bye");

    let mut client = proxy.connect().await;
    client.send(UPGRADE.replace("/ws", "/ws2")).await;
    assert_eq!(client.next_head().await.word(1), "101");
    drop(client);
    origin.peer_left("/ws2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_tunnelled_before_the_101() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    // The script never reads: whatever came would be taken as the next request.
    origin.always("/ws", Script::new().gate(&gate).reply(Reply::ok("not upgraded")));
    origin.on("*", |r| Reply::ok(r.path()));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send([UPGRADE, "GET /raw HTTP/1.1\r\nHost: raw.test\r\n\r\n"].concat()).await;
    origin.arrived("/ws", 1).await;
    gate.open();
    client.response("GET").await.assert_is(200, "not upgraded");
    // The bytes behind it are an ordinary request to the proxy, or nothing.
    let after = client.try_response("GET").await;
    for seen in origin.requests("/raw") {
        assert!(seen.head.lists("via", "1.1 outrigger"), "raw bytes were tunnelled: {seen:#?}");
    }
    if let Ok(after) = after {
        after.assert_is(200, "/raw");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let origin = Origin::start().await;
    origin.always("/ws", Reply::ok("plain"));
    origin.always("/denied", Reply::new(403).body("no"));
    let proxy = Proxy::start(&origin).await;
    for (path, status, body) in [("/ws", 200, "plain"), ("/denied", 403, "no")] {
        let mut client = proxy.connect().await;
        client.send(UPGRADE.replace("/ws", path)).await;
        let response = client.response("GET").await;
        response.assert_is(status, body);
        assert_ne!(response.end, End::Truncated);
        // What follows is HTTP, if the connection is kept at all.
        client.request("GET", path, &[]).await;
        if let Ok(next) = client.try_response("GET").await {
            next.assert_is(status, body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_nobody_asked_for_is_a_bad_gateway() {
    let origin = Origin::start().await;
    origin.always("/plain", Script::new().send(switching()).echo());
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request("GET", "/plain", &[]).await;
    client.response("GET").await.assert_status(502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_field_that_connection_does_not_name_stays_behind() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/a", &[("Upgrade", "websocket")]).await.assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.header("upgrade"), None, "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_neither_answered_from_the_cache_nor_stored() {
    let origin = Origin::start().await;
    origin.on("/ws", |r| match r.header("upgrade") {
        Some(_) => Script::new().send(switching()).send("tunnel").close(),
        None => Reply::cached("max-age=60", "page").into(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/ws").await.assert_is(200, "page");
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.next_head().await.word(1), "101");
    assert_eq!(client.rest_until_close().await.0, b"tunnel");
    proxy.get("/ws").await.assert_is(200, "page").assert_hit();
}
