//! HTTP/2 with prior knowledge: on the traffic port and to the upstream.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::support::{
    ChannelBody, Gate, H2Client, H2Origin, Origin, Proxy, Reply, Script, Setup, chunk, fields,
    head, last_chunk, read, read_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn h2c_is_served_on_the_same_port_from_the_same_cache() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_is(200, "hello");
    let client = H2Client::connect(proxy.addr).await;
    let hit = client.get("/a").await;
    assert_eq!((hit.status(), &hit.body[..]), (200, &b"hello"[..]));
    assert!(hit.cache().has("hit"), "{hit:#?}");
    assert!(hit.header("age").is_some(), "{hit:#?}");
    assert_eq!(hit.header("content-length"), Some("5"), "{hit:#?}");

    origin.always("/b", Reply::cached("max-age=60", "other"));
    assert_eq!(client.get("/b").await.body, "other");
    proxy.get("/b").await.assert_is(200, "other").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_request_becomes_a_plain_http_1_request() {
    let origin = Origin::start().await;
    origin.always(
        "/a",
        Reply::ok("x").header("Connection", "keep-alive, X-Mine").header("X-Mine", "secret"),
    );
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client
        .to("POST", "/a?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-kept", "yes")
        .body(ChannelBody::of("body", &[]))
        .unwrap();
    let response = read(client.send(request).await.unwrap()).await;
    assert_eq!(response.status(), 200);
    for gone in ["connection", "keep-alive", "transfer-encoding", "x-mine"] {
        assert_eq!(response.header(gone), None, "{response:#?}");
    }
    let seen = origin.last("/a");
    assert_eq!(seen.target(), "/a?q=1");
    assert_eq!(seen.head.all("host"), ["shop.test"], "{seen:#?}");
    assert_eq!(seen.body, b"body");
    assert_eq!(seen.header("x-kept"), Some("yes"));
    // Crumbs become one field again (RFC 9113, 8.2.3).
    assert_eq!(seen.head.all("cookie"), ["a=1; b=2"], "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_body_of_undeclared_length_reaches_the_origin_with_every_method() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::ok(&r.body).header("Cache-Control", "no-store"));
    let h2_origin = H2Origin::start(|_| Response::new(ChannelBody::of("", &[]))).await;
    let proxy = Proxy::start(&origin).await;
    let h2_proxy = Setup::upstream(h2_origin.url()).start().await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "REPORT"] {
        for proxy in [&proxy, &h2_proxy] {
            let client = H2Client::connect(proxy.addr).await;
            let body = ChannelBody::of("body", &[]);
            let request = client.to(method, "/a").body(body).unwrap();
            assert_eq!(read(client.send(request).await.unwrap()).await.status(), 200);
        }
        let seen = origin.last("/a");
        assert_eq!((seen.method(), &*seen.body), (method, &b"body"[..]), "{seen:#?}");
        let seen = h2_origin.requests().pop().unwrap();
        assert_eq!((&*seen.method, &seen.body[..]), (method, &b"body"[..]), "{seen:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_trailers_bring_nothing_of_the_mesh_and_no_credentials() {
    const EVIL: [(&str, &str); 5] = [
        ("x-outrigger-peer", "evil"),
        ("authorization", "evil"),
        ("content-length", "1"),
        ("set-cookie", "evil"),
        ("x-sum", "42"),
    ];
    let origin = H2Origin::start(|_| Response::new(ChannelBody::of("x", &EVIL))).await;
    let proxy = Setup::upstream(origin.url()).start().await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("POST", "/a").body(ChannelBody::of("body", &EVIL)).unwrap();
    let response = read(client.send(request).await.unwrap()).await;
    assert_eq!(response.trailers, fields(&[("x-sum", "42")]));
    assert_eq!(origin.requests()[0].trailers, fields(&[("x-sum", "42")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_h2_streams_do_not_wait_for_each_other() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/held", Script::new().gate(&gate).reply(Reply::ok("held")));
    origin.on("*", |r| Reply::ok(r.path()).header("Cache-Control", "no-store"));
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.get("/held").await }
    });
    origin.arrived("/held", 1).await;
    let others: Vec<_> = (0..50)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let path = format!("/{n}");
                assert_eq!(client.get(&path).await.body, path.as_str());
            })
        })
        .collect();
    for other in others {
        other.await.unwrap();
    }
    assert!(!held.is_finished());
    gate.open();
    assert_eq!(held.await.unwrap().body, "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_body_streams_while_the_origin_holds_the_rest() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let script = Script::new()
        .send(head(200, &[("Transfer-Encoding", "chunked"), ("Cache-Control", "max-age=60")]))
        .send(chunk("first "))
        .gate(&gate)
        .send(chunk("rest"))
        .send(last_chunk(&[]));
    origin.always("/s", script);
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("GET", "/s").body(ChannelBody::of("", &[])).unwrap();
    let mut body = client.send(request).await.unwrap().into_body();
    read_until(&mut body, b"first ").await;
    gate.open();
    read_until(&mut body, b"rest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resetting_an_h2_stream_cancels_the_upstream_transfer() {
    let origin = Origin::start().await;
    let lines = [("Cache-Control", "no-store"), ("Content-Length", "10000000000")];
    origin.always("/f", Script::new().send(head(200, &lines)).flood());
    origin.always("/alive", Reply::ok("alive"));
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("GET", "/f").body(ChannelBody::of("", &[])).unwrap();
    let response = client.send(request).await.unwrap();
    drop(response);
    origin.peer_left("/f").await;
    assert_eq!(client.get("/alive").await.body, "alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_response_resets_the_h2_stream() {
    let origin = Origin::start().await;
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", "100")];
    origin.always("/t", Script::new().send(head(200, &lines)).send("half").close());
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("GET", "/t").body(ChannelBody::of("", &[])).unwrap();
    let response = client.send(request).await.unwrap();
    let body = crate::support::within("the body ends", response.into_body().collect()).await;
    assert!(body.is_err(), "a cut body looked whole: {body:?}");
}

fn grpc(_: &crate::support::H2Seen) -> Response<ChannelBody> {
    let mut response = Response::new(ChannelBody::of("reply", &[("grpc-status", "0")]));
    *response.headers_mut() = fields(&[("content-type", "application/grpc")]);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_from_h2c_to_h2c_in_both_directions() {
    let origin = H2Origin::start(grpc).await;
    let proxy = Setup::upstream(origin.url()).start().await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client
        .to("POST", "/pkg.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(ChannelBody::of("message", &[("x-sum", "42")]))
        .unwrap();
    let response = read(client.send(request).await.unwrap()).await;
    assert_eq!((response.status(), &response.body[..]), (200, &b"reply"[..]));
    assert_eq!(response.trailers.get("grpc-status").unwrap(), "0", "{response:#?}");

    let seen = &origin.requests()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/pkg.Service/Method"));
    assert_eq!(seen.body, "message");
    assert_eq!(seen.headers.get("te").unwrap(), "trailers", "gRPC needs it: {seen:#?}");
    assert_eq!(seen.trailers.get("x-sum").unwrap(), "42", "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailers_only_answer_passes_through_h2c() {
    let origin = H2Origin::start(|_| {
        let mut response = Response::new(ChannelBody::of("", &[]));
        *response.headers_mut() =
            fields(&[("content-type", "application/grpc"), ("grpc-status", "12")]);
        response
    })
    .await;
    let proxy = Setup::upstream(origin.url()).start().await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("POST", "/x").body(ChannelBody::of("m", &[])).unwrap();
    let response = read(client.send(request).await.unwrap()).await;
    assert_eq!(response.header("grpc-status"), Some("12"), "{response:#?}");
    assert!(response.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2c_request_body_flows_while_it_is_being_sent() {
    let origin = H2Origin::start(grpc).await;
    let proxy = Setup::upstream(origin.url()).start().await;
    let client = H2Client::connect(proxy.addr).await;
    let (feed, body) = ChannelBody::new();
    let request = client.to("POST", "/stream").body(body).unwrap();
    let answer = tokio::spawn({
        let client = client.clone();
        async move { read(client.send(request).await.unwrap()).await }
    });
    for part in ["one ", "two ", "three"] {
        feed.send(Frame::data(Bytes::from_static(part.as_bytes()))).await.unwrap();
    }
    drop(feed);
    assert_eq!(answer.await.unwrap().body, "reply");
    assert_eq!(origin.requests()[0].body, "one two three");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_client_reaches_an_h2c_upstream_and_hits() {
    let origin = H2Origin::start(|seen| {
        let mut response = Response::new(ChannelBody::of(&seen.path, &[]));
        *response.headers_mut() = fields(&[("cache-control", "max-age=60")]);
        response
    })
    .await;
    let proxy = Setup::upstream(origin.url()).start().await;
    proxy.fetch("GET", "/a?x=1", &[("Connection", "keep-alive")]).await.assert_is(200, "/a?x=1");
    proxy.get("/a?x=1").await.assert_is(200, "/a?x=1").assert_hit();
    let seen = &origin.requests()[0];
    assert_eq!(origin.requests().len(), 1);
    for gone in ["connection", "host", "keep-alive"] {
        assert!(seen.headers.get(gone).is_none(), "{gone} in h2: {seen:#?}");
    }
}
