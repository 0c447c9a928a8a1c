//! What the mesh carries besides plain requests passes through both sides unharmed.

use bytes::Bytes;
use http::Response;

use super::{INBOUND, OUTBOUND};
use crate::support::{
    ChannelBody, Gate, H2Client, H2Origin, Origin, Reply, Script, fields, head, read,
};

fn grpc() -> Response<ChannelBody> {
    let trailers = [("grpc-status", "0"), ("x-sum", "42")];
    let mut response = Response::new(ChannelBody::of("answer", &trailers));
    *response.headers_mut() = fields(&[("content-type", "application/grpc")]);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_in_the_protocol_of_its_client() {
    let origin = H2Origin::start(|_| grpc()).await;
    let plain = Origin::start().await;
    plain.always("/a", Reply::ok("http/1.1"));
    let proxy = INBOUND.proxy("{}").await;
    let client = H2Client::connect(proxy.addr).await;
    for _ in 0..2 {
        let request = client
            .to("POST", "/shop.Catalog/Get")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-outrigger-upstream", origin.addr.to_string())
            .body(ChannelBody::of("question", &[("x-end", "1")]))
            .unwrap();
        let answer = read(client.send(request).await.unwrap()).await;
        assert_eq!((answer.status(), &*answer.body), (200, &b"answer"[..]));
        assert_eq!(answer.trailers, fields(&[("grpc-status", "0"), ("x-sum", "42")]));
    }
    let seen = origin.requests().pop().unwrap();
    assert_eq!(seen.body, Bytes::from("question"));
    assert_eq!(seen.trailers, fields(&[("x-end", "1")]));
    assert!(seen.headers.get("x-outrigger-upstream").is_none(), "{seen:#?}");
    // The same process speaks HTTP/1.1 to an application whose client does.
    let to = plain.addr.to_string();
    let response = proxy.fetch("GET", "/a", &[("x-outrigger-upstream", &to)]).await;
    response.assert_is(200, "http/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_become_tunnels_on_both_sides() {
    for side in [INBOUND, OUTBOUND] {
        let origin = side.origin().await;
        let switching = head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
        origin.always("/ws", Script::new().send(switching).echo());
        let proxy = side.proxy("{}").await;
        let mut client = proxy.connect().await;
        let to = origin.addr.to_string();
        let fields = [("connection", "Upgrade"), ("upgrade", "websocket"), (side.to, &to)];
        client.request("GET", "/ws", &fields).await;
        assert_eq!(client.next_head().await.word(1), "101", "{}", side.mode);
        client.send("ping").await;
        client.until("ping").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_stream_arrives_before_the_next_one_is_made() {
    for side in [INBOUND, OUTBOUND] {
        let origin = side.origin().await;
        let gate = Gate::new();
        let lines = [("Content-Type", "text/event-stream"), ("Connection", "close")];
        let events = Script::new().send(head(200, &lines)).send("data: 1\n\n");
        origin.always("/events", events.gate(&gate).send("data: 2\n\n").close());
        let proxy = side.proxy("{}").await;
        let mut client = proxy.connect().await;
        client.request("GET", "/events", &[(side.to, &origin.addr.to_string())]).await;
        assert_eq!(client.next_head().await.word(1), "200", "{}", side.mode);
        client.until("data: 1\n\n").await;
        gate.open();
        client.until("data: 2\n\n").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_the_application_passes() {
    let origin = Origin::start().await;
    origin.on("/healthz", |r| Reply::new(if r.nth == 1 { 503 } else { 200 }));
    let to = origin.addr.to_string();
    let proxy = INBOUND.proxy("{}").await;
    let probe = async || {
        let fields = [("user-agent", "kube-probe/1.33"), ("x-outrigger-upstream", to.as_str())];
        proxy.fetch("GET", "/healthz", &fields).await
    };
    probe().await.assert_status(503);
    probe().await.assert_status(200);
    probe().await.assert_status(200);
    assert_eq!(origin.hits("/healthz"), 3, "what an application says of itself is not stored");
}
