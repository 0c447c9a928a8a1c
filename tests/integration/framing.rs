//! Strict framing (RFC 9112): what is ambiguous is refused and the connection
//! closed, so that no byte can be read as two different requests.

use std::time::Duration;

use crate::support::{Origin, Proxy, Reply, Setup, eventually, head, metric};

/// How long a connection may stay open after what closes it.
const SOON: Duration = Duration::from_secs(5);
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::ok(r.path()).header("Cache-Control", "no-store"));
    origin
}

/// Sends each request with another one behind it: the first must be refused
/// with 400 and a closed connection, and the second must be read by nobody.
async fn assert_refused(requests: &[String]) {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    let mut wrong = Vec::new();
    for request in requests {
        let mut client = proxy.connect().await;
        client.send([request, NEXT].concat()).await;
        let end = tokio::time::timeout(SOON, client.rest_until_close()).await;
        let Ok((bytes, _)) = end else {
            let so_far = String::from_utf8_lossy(client.buffered()).into_owned();
            wrong.push(format!("{request:?} left the connection open after {so_far:?}"));
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        if !text.starts_with("HTTP/1.1 400") || text.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{request:?} was answered by {text:?}"));
        }
        proxy.get("/alive").await.assert_is(200, "/alive");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.hits("/smuggled"), 0, "a second request was let through");
}

/// A POST with these header lines and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n\r\n{body}")
}

/// A GET with this header line.
fn get(line: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: shop.test\r\n{line}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_content_lengths_that_differ_are_refused() {
    assert_refused(&[
        post("Content-Length: 3\r\nContent-Length: 5", "abc"),
        post("Content-Length: 5\r\nContent-Length: 3", "abc"),
        post("Content-Length: 3, 5", "abc"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_sent_twice_is_refused_or_sent_on_once() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let twice = "Content-Length: 3\r\nContent-Length: 3\r\n";
    client.send(format!("POST /a HTTP/1.1\r\nHost: shop.test\r\n{twice}\r\nabc")).await;
    let status = client.response("POST").await.status;
    if status == 400 {
        assert_eq!(client.rest_until_close().await.0, b"");
        return;
    }
    assert_eq!(status, 200);
    let seen = origin.last("/a");
    assert_eq!(seen.head.all("content-length"), ["3"], "{seen:#?}");
    assert_eq!(seen.body, b"abc");
}

/// RFC 9112 §6.1 leaves a server two ways: to refuse, or to go by the chunks alone. Either way the
/// connection ends and nothing ambiguous is sent on.
#[tokio::test(flavor = "multi_thread")]
async fn transfer_encoding_with_content_length_is_never_sent_on() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    for request in [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ] {
        let mut client = proxy.connect().await;
        client.send([request.as_str(), NEXT].concat()).await;
        let (bytes, _) = client.rest_until_close().await;
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    assert_eq!(origin.hits("/smuggled"), 0, "a second request was let through");
    if origin.hits("/a") > 0 {
        let seen = origin.last("/a");
        assert_eq!(seen.header("content-length"), None, "{seen:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folded_header_line_is_refused() {
    assert_refused(&[get("X-A: one\r\n two"), get("X-A: one\r\n\ttwo")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_chunk_is_refused() {
    let chunks = [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcde\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
    ];
    assert_refused(&chunks.map(|chunks| post("Transfer-Encoding: chunked", chunks))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_encoding_in_http_1_0_is_refused() {
    let old = post("Transfer-Encoding: chunked", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    assert_refused(&[old]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_coding_that_is_not_chunked_is_refused() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    for coding in [
        "identity",
        "xchunked",
        "chunked, identity",
        "chunked, gzip",
        "chunked\r\nTransfer-Encoding: identity",
        "\x0bchunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: Chunked",
        "chunked;q=1",
    ] {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
        );
        let mut client = proxy.connect().await;
        client.send([&request, NEXT].concat()).await;
        let text = String::from_utf8_lossy(&client.rest_until_close().await.0).into_owned();
        let refused = text.starts_with("HTTP/1.1 400") || text.starts_with("HTTP/1.1 501");
        assert!(refused, "{coding:?} was answered by {text:?}");
        assert_eq!(origin.hits("/smuggled"), 0, "{coding:?}");
    }
    assert_eq!(origin.hits("/a"), 0);
    // What says the same as `chunked` is that (RFC 9110, 5.6.1).
    for coding in ["Chunked", ", chunked", "chunked ,"] {
        let lines = format!("Transfer-Encoding: {coding}");
        let mut client = proxy.connect().await;
        client.send(post(&lines, "3\r\nabc\r\n0\r\n\r\n")).await;
        let response = client.response("POST").await;
        if coding != "chunked ," || response.status == 200 {
            response.assert_is(200, "/a");
            assert_eq!(origin.last("/a").body, b"abc", "{coding:?}");
        }
    }
}

const METHODS: [&str; 7] = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PATCH", "REPORT"];

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_reaches_the_origin_with_every_method() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    for method in METHODS {
        for (chunks, body, trailer) in
            [("4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n", "body", Some("42")), ("0\r\n\r\n", "", None)]
        {
            let mut client = proxy.connect().await;
            let lines = "Host: shop.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked";
            client.send(format!("{method} /a HTTP/1.1\r\n{lines}\r\n\r\n{chunks}{NEXT}")).await;
            client.response(method).await.assert_status(200);
            let seen = origin.last("/a");
            assert_eq!((seen.method(), &*seen.body), (method, body.as_bytes()), "{seen:#?}");
            assert_eq!(seen.head.all("transfer-encoding"), ["chunked"], "{seen:#?}");
            assert_eq!(seen.header("content-length"), None, "{seen:#?}");
            let sum = seen.trailers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-sum"));
            assert_eq!(sum.map(|(_, value)| value.as_str()), trailer, "{seen:#?}");
            client.response("GET").await.assert_is(200, "/smuggled");
        }
    }
    assert_eq!(origin.hits("/smuggled"), 2 * METHODS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_body_has_no_part_in_what_is_stored() {
    let origin = origin().await;
    origin.on("/q", |r| Reply::cached("max-age=60", format!("{} {}", r.nth, r.body.len())));
    let proxy = Proxy::start(&origin).await;
    let with_body = async |lines: &str, body: &str| {
        let mut client = proxy.connect().await;
        client.send(format!("GET /q HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n\r\n{body}")).await;
        client.response("GET").await
    };
    let chunked = async || with_body("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n").await;
    // Neither is it stored,
    chunked().await.assert_is(200, "1 3").assert_fwd("bypass");
    proxy.get("/q").await.assert_is(200, "2 0");
    // nor is it answered from the store.
    chunked().await.assert_is(200, "3 3").assert_fwd("bypass");
    with_body("Content-Length: 4", "body").await.assert_is(200, "4 4").assert_fwd("bypass");
    proxy.get("/q").await.assert_is(200, "2 0").assert_hit();

    // It does not wait for a fetch of others, and they do not wait for it.
    let gate = crate::support::Gate::new();
    let held = gate.clone();
    origin.on("/w", move |r| {
        let reply = Reply::cached("max-age=60", format!("{}", r.body.len()));
        let script = crate::support::Script::new();
        if r.body.is_empty() { script.gate(&held).reply(reply) } else { script.reply(reply) }
    });
    let fetch = proxy.get("/w");
    let other = async {
        origin.arrived("/w", 1).await;
        let mut client = proxy.connect().await;
        let lines = "Host: shop.test\r\nTransfer-Encoding: chunked";
        client.send(format!("GET /w HTTP/1.1\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await;
        client.response("GET").await.assert_is(200, "3");
        gate.open();
    };
    let (fetched, ()) = tokio::join!(fetch, other);
    fetched.assert_is(200, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_no_path_is_never_sent_on_as_nothing() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=60", format!("{} {}", r.method(), r.target())));
    let proxy = Proxy::start(&origin).await;
    let ask = async |line: &str| {
        let mut client = proxy.connect().await;
        client.send(format!("{line} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        client.response("GET").await
    };
    for line in [
        "GET http://shop.test#x",
        "GET http://shop.test/#x",
        "GET /a#x",
        "GET /a?b#x",
        "GET /#",
        "GET #x",
        "GET *",
        "POST *",
        "GET ftp://shop.test/",
        "GET ?x",
    ] {
        ask(line).await.assert_status(400);
    }
    assert!(origin.all_requests().is_empty(), "{:#?}", origin.all_requests());
    // An absolute URI without a path has an empty one.
    ask("GET http://shop.test?x=1").await.assert_is(200, "GET /?x=1");
    proxy.get("/?x=1").await.assert_is(200, "GET /?x=1").assert_hit();
    ask("GET HTTP://shop.test").await.assert_is(200, "GET /");
    proxy.get("/").await.assert_is(200, "GET /").assert_hit();
    ask("OPTIONS *").await.assert_is(200, "OPTIONS *");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_bytes_of_a_target_reach_the_origin_as_escapes() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=60", r.target()));
    let proxy = Proxy::start(&origin).await;
    let promql: &[u8] = b"/q?query=up{job=\"x\"}<5>`";
    for (sent, seen) in [
        (promql, "/q?query=up{job=%22x%22}%3C5%3E`"),
        (b"/<a>`\"?", "/%3Ca%3E%60\"?"),
        (b"/caf\xe9?\xff", "/caf%E9?%FF"),
        ("/caf\u{e9}".as_bytes(), "/caf\u{e9}"),
    ] {
        let request = [b"GET ", sent, b" HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat();
        // On a connection with a body before it, in two pieces, and behind an empty line.
        let mut client = proxy.connect().await;
        client.send(post("Content-Length: 8", "GET /\"< ")).await;
        client.response("POST").await.assert_is(200, "/a");
        assert_eq!(origin.last("/a").body, b"GET /\"< ");
        client.send(&request).await;
        client.response("GET").await.assert_is(200, seen);
        client.send([b"\r\n", &request[..]].concat()).await;
        client.response("GET").await.assert_is(200, seen).assert_hit();
        // The escaped spelling is the same resource.
        client.send(format!("GET {seen} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        client.response("GET").await.assert_is(200, seen).assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_head_that_cannot_be_read_is_answered_counted_and_logged() {
    let origin = origin().await;
    let proxy = Setup::of(&origin)
        .config("telemetry: {accessLog: stdout}\nlimits: {headerBytesMax: 131072}")
        .start()
        .await;
    let long = "x".repeat(70_000);
    let heads = [
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET /a\u{1} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "unreadable"),
        ("G@T /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET /a HTTP/1.1\r\nX A: b\r\n\r\n".to_owned(), 400, "unreadable"),
        (post("Content-Length: +3", "abc"), 400, "unreadable"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "target-too-long"),
        (get(&"X-Line: v\r\n".repeat(300)), 431, "head-too-large"),
        (get("Host: b"), 400, "several-hosts"),
    ];
    for (n, (head, status, detail)) in heads.iter().enumerate() {
        for first in [false, true] {
            let mut client = proxy.connect().await;
            if !first {
                client.get("/before", &[]).await.assert_is(200, "/before");
            }
            client.send(head).await;
            let response = client.response("GET").await;
            response.assert_is(*status, format!("refused: {detail}\n"));
            assert_eq!(response.cache().get("detail"), Some(*detail), "{response:#?}");
            assert_eq!(client.rest_until_close().await.0, b"");
        }
        let labels = [("outcome", "rejected")];
        let counted = 2.0 * (n + 1) as f64;
        eventually("the count", || async {
            (metric(&proxy, "outrigger_requests_total", &labels).await == counted).then_some(())
        })
        .await;
    }
    let lines = |log: &str| log.matches("\"outcome\":\"rejected\"").count();
    eventually("the log", || async { (lines(&proxy.log()) == 2 * heads.len()).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_what_looks_like_http_unchanged() {
    let origin = origin().await;
    let switch = [("Upgrade", "echo"), ("Connection", "upgrade")];
    origin
        .on_head("/tunnel", move |_| crate::support::Script::new().send(head(101, &switch)).echo());
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client.request("GET", "/tunnel", &switch).await;
    assert_eq!(client.next_head().await.word(1), "101");
    for text in ["GET /a\"<>#? HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        client.send(text).await;
        assert_eq!(client.exactly(text.len()).await, text.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_request_is_answered_in_our_own_version() {
    let origin = origin().await;
    origin.always("/hit", Reply::cached("max-age=60", "HTTP/1.0 is old"));
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    for path in ["/hit", "/hit", "/pass"] {
        let line = format!("GET {path} HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive");
        client.send(format!("{line}\r\n\r\n")).await;
        let response = client.response("GET").await;
        response.assert_is(200, if path == "/hit" { "HTTP/1.0 is old" } else { "/pass" });
        assert!(response.head.start.starts_with("HTTP/1.1 200"), "{response:#?}");
        assert_eq!(response.header("connection"), Some("keep-alive"), "{response:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_none_is_refused_in_every_place() {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::ok(r.target()));
    let proxy = Proxy::start(&origin).await;
    for host in
        ["[::1", "::1]", "[zz]", ":80", "a:80:80", "a:99999", "%zz", "x[::1]:80", "", "user@a", "."]
    {
        for head in [
            format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}/a HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        ] {
            let mut client = proxy.connect().await;
            client.send(&head).await;
            client.response("GET").await.assert_status(400);
        }
    }
    assert!(origin.all_requests().is_empty(), "{:#?}", origin.all_requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_that_is_no_number_is_refused() {
    let lengths = ["", "-1", "+3", "3a", "0x3", "99999999999999999999999", "3 3"];
    assert_refused(&lengths.map(|length| post(&format!("Content-Length: {length}"), "abc"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_header_line_is_refused() {
    assert_refused(&[
        get("Content-Length : 0"),
        get(": value"),
        get("no colon"),
        get("X A: b"),
        get("X-A: a\0b"),
        get(" X-A: b"),
        get("X-\u{e9}: b"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_doubled_or_malformed_host_is_refused() {
    let hosts = [
        "",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test, b.test\r\n",
        "Host: a b\r\n",
        "Host: user@a.test\r\n",
        "Host: a.test/path\r\n",
        "Host: a.test:port\r\n",
    ];
    assert_refused(&hosts.map(|host| format!("GET /a HTTP/1.1\r\n{host}\r\n"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_line_is_refused() {
    let lines = [
        "GET /a",
        "GET  /a HTTP/1.1",
        "GET /a b HTTP/1.1",
        "G@T /a HTTP/1.1",
        "GET a HTTP/1.1",
        "GET /a HTTP/1.7x",
        "GET /a\u{1} HTTP/1.1",
    ];
    assert_refused(&lines.map(|line| format!("{line}\r\nHost: shop.test\r\n\r\n"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_get_that_hits_is_not_the_next_request() {
    let origin = origin().await;
    origin.always("/hit", Reply::cached("max-age=60", "stored"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/hit").await.assert_is(200, "stored");
    proxy.get("/hit").await.assert_hit();

    let length = NEXT.len();
    let fat = format!("GET /hit HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n");
    let after = "GET /after HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let mut client = proxy.connect().await;
    client.send([&fat, NEXT, after].concat()).await;
    client.response("GET").await.assert_status(200);
    // Either the body was drained and the next request is served, or the
    // connection ends here.
    match client.try_response("GET").await {
        Ok(next) => drop(next.assert_is(200, "/after")),
        Err(_) => assert_eq!(origin.hits("/after"), 0),
    }
    assert_eq!(origin.hits("/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_closes_the_connection() {
    let origin = origin().await;
    origin.always("/hit", Reply::cached("max-age=60", "stored"));
    let limits = "limits: {bodyIdleTimeoutMs: 300}";
    let proxy = Setup::of(&origin).config(limits).start().await;
    proxy.get("/hit").await;

    let mut client = proxy.connect().await;
    client.send("GET /hit HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000000\r\n\r\n").await;
    // The answer is there before the body, or at the latest after some of it.
    client.send(NEXT.repeat(2000)).await;
    let (bytes, _) = client.rest_until_close().await;
    assert!(bytes.len() < 10_000, "much more than one answer came");
    assert_eq!(origin.hits("/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_of_the_proxy_leaves_no_body_bytes_behind() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    proxy.get("/first").await.assert_status(200);
    // A loop is refused without reading the body.
    let passed = origin.last("/first").head.all("cdn-loop").join(", ");
    let after = "GET /after HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let mut client = proxy.connect().await;
    let lines = format!("CDN-Loop: {passed}\r\nContent-Length: {}", NEXT.len());
    client.send([&post(&lines, NEXT), after].concat()).await;
    client.response("POST").await.assert_status(508);
    if let Ok(next) = client.try_response("GET").await {
        next.assert_is(200, "/after");
    }

    // A body that would take for ever is not waited for.
    let mut client = proxy.connect().await;
    let lines = format!("CDN-Loop: {passed}\r\nContent-Length: 100000000");
    client.send(post(&lines, NEXT)).await;
    client.response("POST").await.assert_status(508);
    let end = tokio::time::timeout(SOON, client.rest_until_close()).await;
    assert!(end.is_ok(), "the connection waits for a body that nobody reads");
    assert_eq!(origin.hits("/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_of_the_origin_leaves_no_body_bytes_behind() {
    let origin = origin().await;
    let lines = [("Content-Length", "4"), ("Connection", "close")];
    origin.on_head("/early", move |_| {
        crate::support::Script::new().send(head(403, &lines)).send("deny").close()
    });
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    let length = NEXT.len();
    client
        .send(format!(
            "POST /early HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    client.response("POST").await.assert_is(403, "deny");
    // The body comes after the answer; then another request, unless it closed.
    client
        .send(
            [NEXT, "GET /after HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"].concat(),
        )
        .await;
    if let Ok(next) = client.try_response("GET").await {
        next.assert_is(200, "/after");
    }
    assert_eq!(origin.hits("/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_and_counted_requests_reach_the_origin_whole() {
    let origin = origin().await;
    let proxy = Proxy::start(&origin).await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST /chunks HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        )
        .await;
    client.response("POST").await.assert_is(200, "/chunks");
    assert_eq!(origin.last("/chunks").body, b"abc0123456789");
    client.send("POST /counted HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody").await;
    client.response("POST").await.assert_is(200, "/counted");
    assert_eq!(origin.last("/counted").body, b"body");
    client.send("POST /none HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n").await;
    client.response("POST").await.assert_is(200, "/none");
    assert_eq!(origin.last("/none").body, b"");
}
