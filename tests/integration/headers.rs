//! What is added to and taken from messages on their way.

use crate::support::{H2Client, Origin, Proxy, Reply, Script, Setup, chunk, head, last_chunk};

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_a_request_stay_behind() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    let sent = [
        ("Connection", "keep-alive, X-Nominated"),
        ("X-Nominated", "secret"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "gzip"),
        ("Upgrade-Insecure-Requests", "1"),
        ("X-Kept", "yes"),
    ];
    proxy.fetch("GET", "/a", &sent).await.assert_status(200);
    let seen = origin.last("/a");
    for gone in ["x-nominated", "keep-alive", "proxy-connection"] {
        assert_eq!(seen.header(gone), None, "{gone} went through: {seen:#?}");
    }
    assert_ne!(seen.header("te"), Some("gzip"), "{seen:#?}");
    assert!(!seen.head.lists("connection", "x-nominated"), "{seen:#?}");
    assert_eq!(seen.header("x-kept"), Some("yes"));
    assert_eq!(seen.header("upgrade-insecure-requests"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_a_response_stay_behind_on_miss_and_hit() {
    let origin = Origin::start().await;
    origin.always(
        "/a",
        Reply::cached("max-age=60", "x")
            .header("Connection", "keep-alive, X-Nominated")
            .header("X-Nominated", "secret")
            .header("Keep-Alive", "timeout=77")
            .header("Proxy-Connection", "keep-alive")
            .header("Trailer", "x-sum")
            .header("X-Kept", "yes"),
    );
    let proxy = Proxy::start(&origin).await;
    for _ in 0..2 {
        let response = proxy.get("/a").await;
        response.assert_is(200, "x");
        for gone in ["x-nominated", "keep-alive", "proxy-connection"] {
            assert_eq!(response.header(gone), None, "{gone} went through: {response:#?}");
        }
        assert!(!response.head.lists("connection", "x-nominated"), "{response:#?}");
        assert_eq!(response.header("x-kept"), Some("yes"));
    }
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_strip_fields_that_protect() {
    let origin = Origin::start().await;
    origin.on("/a", |r| {
        let cookie = r.header("cookie").unwrap_or("none");
        Reply::ok(format!("{} {cookie}", r.header("host").unwrap_or("none")))
    });
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let nominated = "host, content-length, authorization, cache-control, cdn-loop, via";
    client
        .send(format!(
            "POST /a HTTP/1.1\r\nHost: shop.test\r\nConnection: {nominated}\r\n\
             Authorization: Bearer t\r\nCache-Control: no-store\r\nCDN-Loop: other\r\n\
             Content-Length: 4\r\n\r\nbody"
        ))
        .await;
    let response = client.response("POST").await;
    // Refusing the request is as good as ignoring the nomination.
    if response.status == 400 {
        assert_eq!(origin.hits("/a"), 0);
        return;
    }
    response.assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.header("host"), Some("shop.test"), "{seen:#?}");
    assert_eq!(seen.header("authorization"), Some("Bearer t"), "{seen:#?}");
    assert_eq!(seen.header("cache-control"), Some("no-store"), "{seen:#?}");
    assert_eq!(seen.body, b"body", "{seen:#?}");
    assert!(seen.head.lists("cdn-loop", "other"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_cannot_nominate_its_own_protection_away() {
    let origin = Origin::start().await;
    origin.on("/a", |r| {
        Reply::cached("private", r.nth.to_string()).header("Connection", "cache-control")
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_is(200, "1");
    let second = proxy.get("/a").await;
    second.assert_is(200, "2");
    assert_eq!(second.header("cache-control"), Some("private"), "{second:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_426_says_which_protocol_it_asks_for() {
    let origin = Origin::start().await;
    let lines = [("Upgrade", "HTTP/3"), ("Connection", "Upgrade"), ("Cache-Control", "max-age=60")];
    let head = head(426, &[&lines[..], &[("Content-Length", "0")]].concat());
    origin.always("/a", Script::new().send(head));
    let proxy = Proxy::start(&origin).await;
    for _ in 0..2 {
        let response = proxy.get("/a").await;
        response.assert_status(426);
        assert_eq!(response.header("upgrade"), Some("HTTP/3"), "{response:#?}");
        assert!(response.head.lists("connection", "upgrade"), "{response:#?}");
    }
    // HTTP/2 has no such field (RFC 9113, 8.2.2).
    let response = H2Client::connect(proxy.addr).await.get("/a").await;
    assert_eq!((response.status(), response.header("upgrade")), (426, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn max_forwards_of_options_and_trace_counts_down() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::ok(r.header("max-forwards").unwrap_or("none")));
    let proxy = Proxy::start(&origin).await;
    for (method, sent, seen) in [
        ("OPTIONS", "10", "9"),
        ("OPTIONS", "1", "0"),
        ("TRACE", "3", "2"),
        ("GET", "0", "0"),
        ("POST", "0", "0"),
        ("TRACE", "x", "x"),
    ] {
        proxy.fetch(method, "/a", &[("Max-Forwards", sent)]).await.assert_is(200, seen);
    }
    let seen = origin.hits("/a");
    let fields =
        [("Max-Forwards", "0"), ("X-Mine", "1"), ("Authorization", "secret"), ("Cookie", "secret")];
    let options = proxy.fetch("OPTIONS", "/a", &fields).await;
    options.assert_is(200, "");
    assert_eq!(options.cache().get("detail"), Some("last-hop"), "{options:#?}");
    let trace = proxy.fetch("TRACE", "/a?b", &fields).await;
    trace.assert_status(200);
    assert_eq!(trace.header("content-type"), Some("message/http"), "{trace:#?}");
    let text = trace.text().to_lowercase();
    assert!(text.starts_with("trace /a?b http/1.1\r\n"), "{text}");
    assert!(text.contains("\r\nx-mine: 1\r\n") && !text.contains("secret"), "{text}");
    assert_eq!(origin.hits("/a"), seen, "sent on although no hop was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_mesh_come_neither_in_trailers_nor_from_the_application() {
    let origin = Origin::start().await;
    let lines = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Outrigger-Peer, X-Sum")];
    let reply = Script::new()
        .send(head(200, &[&lines[..], &[("X-Outrigger-Peer", "evil")]].concat()))
        .send(chunk("content"))
        .send(last_chunk(&[("X-Outrigger-Peer", "evil"), ("X-Sum", "42")]));
    origin.always("/a", reply);
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let trailer = "TE: trailers\r\nTrailer: X-Outrigger-Peer, X-Outrigger-Hop, Cookie, X-Sum";
    let chunks =
        "0\r\nX-Outrigger-Peer: evil\r\nX-Outrigger-Hop: 1\r\nCookie: a\r\nX-Sum: 42\r\n\r\n";
    client
        .send(format!(
            "POST /a HTTP/1.1\r\nHost: shop.test\r\n{trailer}\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}"
        ))
        .await;
    let response = client.response("POST").await;
    response.assert_is(200, "content");
    assert_eq!(response.header("x-outrigger-peer"), None, "{response:#?}");
    let names = |trailers: &[(String, String)]| {
        trailers.iter().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>()
    };
    assert_eq!(names(&response.trailers), ["x-sum"], "{response:#?}");
    assert_eq!(names(&origin.last("/a").trailers), ["x-sum"], "{:#?}", origin.last("/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn via_names_the_proxy_in_both_directions() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "x").header("Via", "1.1 inner"));
    let proxy = Proxy::start(&origin).await;
    for _ in 0..2 {
        let response = proxy.fetch("GET", "/a", &[("Via", "1.1 outer")]).await;
        assert!(response.head.lists("via", "1.1 outrigger"), "{response:#?}");
        assert!(response.head.lists("via", "1.1 inner"), "{response:#?}");
    }
    let seen = origin.last("/a");
    assert!(seen.head.lists("via", "1.1 outer"), "{seen:#?}");
    assert!(seen.head.lists("via", "1.1 outrigger"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_tell_the_origin_who_asked() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{seen:#?}");
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"), "{seen:#?}");
    // What an earlier hop told is never lost.
    proxy.fetch("GET", "/a", &[("X-Forwarded-For", "203.0.113.9")]).await.assert_status(200);
    let hops = origin.last("/a").head.all("x-forwarded-for").join(", ");
    assert!(hops.starts_with("203.0.113.9"), "{hops}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_already_passed_this_instance_is_a_loop() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/a", &[("CDN-Loop", "other; id=1")]).await.assert_status(200);
    let seen = origin.last("/a");
    let lines = seen.head.all("cdn-loop").join(", ");
    assert!(lines.contains("other"), "{lines}");
    let ours = lines.split(',').map(str::trim).find(|m| m.starts_with("outrigger"));
    let ours = ours.unwrap_or_else(|| panic!("no outrigger member in {lines}"));
    assert!(ours.contains('='), "no instance id in {ours}");

    // The same member again: this very instance.
    proxy.fetch("GET", "/b", &[("CDN-Loop", &lines)]).await.assert_status(508);
    assert_eq!(origin.hits("/b"), 0);
    // Another instance of the product is not a loop.
    let other = [("CDN-Loop", "outrigger; instance=\"another\"")];
    proxy.fetch("GET", "/a", &other).await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_its_own_upstream_answers_508() {
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", relay.local_addr().unwrap());
    let proxy = Setup::upstream(upstream).start().await;
    let back = proxy.addr;
    // What the proxy sends comes back to it, a few times at most.
    let loops = tokio::spawn(async move {
        for _ in 0..10 {
            let (mut from, _) = relay.accept().await.unwrap();
            let mut to = tokio::net::TcpStream::connect(back).await.unwrap();
            tokio::spawn(async move {
                // Either side may end it; the test looks at the answer only.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    proxy.get("/loop").await.assert_status(508);
    assert!(!loops.is_finished(), "the request went round ten times");
    loops.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_fields_reach_the_origin_as_they_were() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    let sent = [
        ("Accept-Encoding", "br;q=1.0, gzip"),
        ("Cookie", "a=1; b=2"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ("X-Empty", ""),
        ("X-Odd", "\"quoted, comma\"; x=y"),
    ];
    proxy.fetch("GET", "/a?q=%2F&b=1&a=2", &sent).await.assert_status(200);
    let seen = origin.last("/a");
    assert_eq!(seen.target(), "/a?q=%2F&b=1&a=2");
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"), "{seen:#?}");
    assert_eq!(seen.header("x-empty"), Some(""), "{seen:#?}");
    assert_eq!(seen.header("x-odd"), Some("\"quoted, comma\"; x=y"), "{seen:#?}");
    let trace = seen.header("traceparent").unwrap_or_default();
    assert!(trace.contains("0af7651916cd43dd8448eb211c80319c"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cache_before_us_says_in_cache_status_stays() {
    let origin = Origin::start().await;
    let reply = Reply::cached("max-age=600", "body").header("ETag", "\"v1\"");
    origin.always("/s", reply.header("Cache-Status", "Origin-Cache; hit"));
    let proxy = Proxy::start(&origin).await;
    let condition = [("If-None-Match", "\"v1\"")];
    for (headers, status) in [(&[][..], 200), (&[][..], 200), (&condition[..], 304)] {
        let response = proxy.fetch("GET", "/s", headers).await;
        response.assert_status(status);
        let said = response.head.all("cache-status").join(", ");
        assert!(said.starts_with("Origin-Cache; hit, Outrigger; "), "{said}");
    }
    assert_eq!(origin.hits("/s"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_response_lines_stay_separate() {
    let origin = Origin::start().await;
    let lines = [
        ("Cache-Control", "max-age=60"),
        ("Link", "</a>"),
        ("Link", "</b>"),
        ("Content-Length", "0"),
    ];
    origin.always("/a", crate::support::Script::new().send(head(200, &lines)));
    let proxy = Proxy::start(&origin).await;
    for _ in 0..2 {
        let response = proxy.get("/a").await;
        let links = response.head.all("link");
        assert!(links == ["</a>", "</b>"] || links == ["</a>, </b>"], "{response:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directives_and_the_word_of_other_caches_are_passed_on() {
    let origin = Origin::start().await;
    let control = "max-age=60, no-transform, x-own=\"a, b\"";
    origin.always(
        "/a",
        Reply::ok("x")
            .header("Cache-Control", control)
            .header("CDN-Cache-Control", "max-age=50")
            .header("Other-Cache-Control", "no-store")
            .header("Cache-Status", "Origin; hit"),
    );
    let proxy = Proxy::start(&origin).await;
    let asked = [("Cache-Control", "max-age=30, x-mine=1"), ("Pragma", "no-cache")];
    for hit in [false, true] {
        let response = proxy.fetch("GET", "/a", &asked).await;
        response.assert_status(200);
        assert_eq!(response.cache().has("hit"), hit, "{response:#?}");
        assert_eq!(response.header("cache-control"), Some(control), "{response:#?}");
        assert_eq!(response.header("cdn-cache-control"), Some("max-age=50"), "{response:#?}");
        assert_eq!(response.header("other-cache-control"), Some("no-store"), "{response:#?}");
        let said = response.head.all("cache-status").join(", ");
        assert!(said.starts_with("Origin; hit, Outrigger;"), "{said}");
    }
    let seen = origin.last("/a");
    assert_eq!(seen.header("cache-control"), Some("max-age=30, x-mine=1"), "{seen:#?}");
    assert_eq!(seen.header("pragma"), Some("no-cache"), "{seen:#?}");
}
