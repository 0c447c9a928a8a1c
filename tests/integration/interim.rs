//! Responses before the response: 100, 102, 103.

use crate::support::{Gate, H2Client, Origin, Proxy, Reply, Script, Setup, head};

fn hints() -> Vec<u8> {
    head(103, &[("Link", "</style.css>; rel=preload")])
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_reach_the_client_before_the_response() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let page = Reply::cached("max-age=60", "page");
    origin.always("/a", Script::new().send(hints()).gate(&gate).reply(page));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request("GET", "/a", &[]).await;
    // The hints are there while the origin still holds the response.
    let early = client.next_head().await;
    assert_eq!(early.word(1), "103", "{early:#?}");
    assert_eq!(early.get("link"), Some("</style.css>; rel=preload"), "{early:#?}");
    gate.open();
    client.response("GET").await.assert_is(200, "page");

    let hit = client.get("/a", &[]).await;
    hit.assert_is(200, "page").assert_hit();
    assert!(hit.interim.is_empty(), "{hit:#?}");
    assert_eq!(hit.header("link"), None, "a hint became part of the entry: {hit:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_interim_response_is_passed_on_in_order() {
    let origin = Origin::start().await;
    let script = || {
        Script::new()
            .send(head(102, &[]))
            .send(hints())
            .send(head(103, &[("Link", "</two.js>")]))
            .reply(Reply::ok("done").header("Cache-Control", "no-store"))
    };
    origin.always("/a", script());
    let proxy = Proxy::start(&origin).await;
    let response = proxy.get("/a").await;
    response.assert_is(200, "done");
    let codes: Vec<_> = response.interim.iter().map(|head| head.word(1).to_owned()).collect();
    assert_eq!(codes, ["102", "103", "103"], "{response:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_no_interim_response() {
    let origin = Origin::start().await;
    origin.always("/a", Script::new().send(hints()).reply(Reply::ok("page")));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("GET /a HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    let response = client.response("GET").await;
    response.assert_is(200, "page");
    assert!(response.interim.is_empty(), "{response:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_do_not_disturb_pipelined_answers() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/one", Script::new().gate(&gate).reply(Reply::ok("one")));
    origin.always("/two", Script::new().send(hints()).reply(Reply::ok("two")));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client.send([get("/one"), get("/two")].concat()).await;
    origin.arrived("/one", 1).await;
    gate.open();
    let one = client.response("GET").await;
    one.assert_is(200, "one");
    assert!(one.interim.is_empty(), "{one:#?}");
    client.response("GET").await.assert_is(200, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_do_not_harm_an_h2_client() {
    let origin = Origin::start().await;
    origin.always("/a", Script::new().send(hints()).reply(Reply::cached("max-age=60", "page")));
    let proxy = Proxy::start(&origin).await;
    let client = H2Client::connect(proxy.addr).await;
    for _ in 0..2 {
        let response = client.get("/a").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.body, "page");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let origin = Origin::start().await;
    origin.on("/up", |r| Reply::ok(&r.body));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client
        .send("POST /up HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let go_on = client.next_head().await;
    assert_eq!(go_on.word(1), "100", "{go_on:#?}");
    client.send("body").await;
    client.response("POST").await.assert_is(200, "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_100_from_the_origin_is_not_taken_for_the_response() {
    let origin = Origin::start().await;
    origin.on("/up", |r| {
        Script::new().send("HTTP/1.1 100 Continue\r\n\r\n").reply(Reply::ok(&r.body))
    });
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.send("POST /up HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody").await;
    client.response("POST").await.assert_is(200, "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_interim_responses_are_cut_off() {
    let origin = Origin::start().await;
    let many = hints().repeat(20_000);
    origin.always("/a", Script::new().send(many).hang());
    origin.always("/alive", Reply::ok("alive"));
    let timeouts = "timeouts: {firstByteMs: 1000, totalMs: 2000}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).start().await;
    proxy.get("/a").await.assert_status(504);
    proxy.get("/alive").await.assert_is(200, "alive");
}
