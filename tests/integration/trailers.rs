//! Trailer fields over HTTP/1.1, both ways.

use crate::support::{End, Origin, Proxy, Reply, Script, chunk, head, last_chunk};

fn with_trailer(control: &str) -> Script {
    let lines =
        [("Cache-Control", control), ("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")];
    Script::new()
        .send(head(200, &lines))
        .send(chunk("content"))
        .send(last_chunk(&[("X-Sum", "42")]))
}

fn has(trailers: &[(String, String)], name: &str, value: &str) -> bool {
    trailers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
}

#[tokio::test(flavor = "multi_thread")]
async fn response_trailers_reach_a_client_that_wants_them() {
    let origin = Origin::start().await;
    origin.always("/pass", with_trailer("no-store"));
    origin.always("/store", with_trailer("max-age=60"));
    let proxy = Proxy::start(&origin).await;
    let wants = [("TE", "trailers"), ("Connection", "TE")];
    for path in ["/pass", "/store"] {
        let response = proxy.fetch("GET", path, &wants).await;
        response.assert_is(200, "content");
        assert_eq!(response.end, End::Chunked, "{response:#?}");
        assert!(has(&response.trailers, "x-sum", "42"), "{path}: {response:#?}");
    }
    // From the store: the content is whole, whatever becomes of the trailers.
    proxy.fetch("GET", "/store", &wants).await.assert_is(200, "content").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_reach_the_origin() {
    let origin = Origin::start().await;
    origin.always("/up", Reply::ok("thanks"));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST /up HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n",
        )
        .await;
    client.response("POST").await.assert_is(200, "thanks");
    let seen = origin.last("/up");
    assert_eq!(seen.body, b"body");
    assert!(has(&seen.trailers, "x-sum", "42"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_cannot_bring_framing_or_routing_fields() {
    let origin = Origin::start().await;
    let lines = [("Transfer-Encoding", "chunked"), ("Cache-Control", "max-age=60")];
    let evil = [("Content-Length", "3"), ("Cache-Control", "no-store"), ("Set-Cookie", "a=b")];
    origin.always(
        "/a",
        Script::new().send(head(200, &lines)).send(chunk("content")).send(last_chunk(&evil)),
    );
    let proxy = Proxy::start(&origin).await;
    for _ in 0..2 {
        let response = proxy.fetch("GET", "/a", &[("TE", "trailers")]).await;
        response.assert_is(200, "content");
        assert_eq!(response.header("set-cookie"), None, "{response:#?}");
        assert!(!has(&response.trailers, "content-length", "3"), "{response:#?}");
    }
}
