//! What attackers do to caching proxies, one test per lesson: hostile
//! upstreams, h2 floods, range amplification.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{End, Gate, H2Client, Origin, Proxy, Reply, Script, Setup, within};

/// The origin sends these bytes and closes: what does the client get?
async fn upstream_says(bytes: &[u8]) -> (Origin, Proxy, crate::support::Response) {
    let origin = Origin::start().await;
    origin.always("/a", Script::new().send(bytes).close());
    origin.always("/alive", Reply::ok("alive"));
    let proxy = Proxy::start(&origin).await;
    let response = proxy.get("/a").await;
    proxy.get("/alive").await.assert_is(200, "alive");
    (origin, proxy, response)
}

async fn assert_bad_gateway(bytes: &[u8]) {
    let (origin, proxy, response) = upstream_says(bytes).await;
    let said = String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(response.status, 502, "{said:?} became {response:#?}");
    assert!(!response.cache().is_absent(), "{response:#?}");
    let seen = origin.hits("/a");
    proxy.get("/a").await;
    assert!(origin.hits("/a") > seen, "{said:?} was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_http_is_a_bad_gateway() {
    assert_bad_gateway(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert_bad_gateway(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_bad_gateway(b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n").await;
    assert_bad_gateway(b"HTTP/1.1 200 OK\r\nContent-Le").await;
    assert_bad_gateway(b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_two_lengths_is_a_bad_gateway() {
    let two = "Cache-Control: max-age=60\r\nContent-Length: 3\r\nContent-Length: 5\r\n";
    assert_bad_gateway(format!("HTTP/1.1 200 OK\r\n{two}\r\nabcde").as_bytes()).await;
    let list = "Cache-Control: max-age=60\r\nContent-Length: 3, 5\r\n";
    assert_bad_gateway(format!("HTTP/1.1 200 OK\r\n{list}\r\nabcde").as_bytes()).await;
    let bad = "Cache-Control: max-age=60\r\nContent-Length: -5\r\n";
    assert_bad_gateway(format!("HTTP/1.1 200 OK\r\n{bad}\r\nabcde").as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_a_transfer_coding_that_is_not_chunked_is_a_bad_gateway() {
    for coding in [
        "gzip, chunked",
        "gzip",
        "identity",
        "chunked, chunked",
        "xchunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        let lines = format!("Cache-Control: max-age=60\r\nTransfer-Encoding: {coding}");
        let bytes = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_bad_gateway(bytes.as_bytes()).await;
    }
    let lines = "Cache-Control: max-age=60\r\nTransfer-Encoding: , Chunked";
    let bytes = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    upstream_says(bytes.as_bytes()).await.2.assert_is(200, "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_lengths_of_an_upstream_are_one() {
    for lines in ["Content-Length: 5, 5", "Content-Length: 5\r\nContent-Length: 5"] {
        let bytes = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{lines}\r\n\r\nhello");
        let (_origin, proxy, response) = upstream_says(bytes.as_bytes()).await;
        response.assert_is(200, "hello");
        assert_eq!(response.head.all("content-length"), ["5"], "{response:#?}");
        let hit = proxy.get("/a").await;
        hit.assert_is(200, "hello").assert_hit();
        assert_eq!(hit.head.all("content-length"), ["5"], "{hit:#?}");
        let h2 = H2Client::connect(proxy.addr).await.get("/a").await;
        assert_eq!((h2.header("content-length"), &*h2.body), (Some("5"), &b"hello"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_without_content_says_no_length_of_it() {
    for control in ["no-store", "max-age=60"] {
        let lines = format!("Cache-Control: {control}\r\nContent-Length: 5");
        let interim = "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\n";
        let bytes = format!("{interim}HTTP/1.1 204 No Content\r\n{lines}\r\n\r\n");
        let (_origin, proxy, response) = upstream_says(bytes.as_bytes()).await;
        for response in [response, proxy.get("/a").await] {
            response.assert_status(204);
            assert_eq!(response.header("content-length"), None, "{response:#?}");
            let interim = response.interim.iter().find_map(|head| head.get("content-length"));
            assert_eq!(interim, None, "{response:#?}");
        }
        let client = H2Client::connect(proxy.addr).await;
        for _ in 0..2 {
            let response = client.get("/a").await;
            assert_eq!((response.status(), response.header("content-length")), (204, None));
        }
    }
}

/// What an upstream sends that breaks off within the beginning of its response.
const CUT: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_before_the_body_is_a_bad_gateway_every_time() {
    for head in CUT {
        let origin = Origin::start().await;
        origin.always("/a", Script::new().send(head).reset());
        origin.always("/b", Script::new().send(head).close());
        for path in ["/a", "/b"] {
            let proxy = Proxy::start(&origin).await;
            let h2 = H2Client::connect(proxy.addr).await;
            // Fewer than open the circuit breaker.
            for _ in 0..9 {
                let response = proxy.get(path).await;
                response.assert_status(502);
                assert!(!response.cache().is_absent(), "{response:#?}");
                assert_eq!(h2.get(path).await.status(), 502);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_response_that_breaks_off_get_the_same_error() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/a", Script::new().gate(&gate).send(CUT[0]).reset());
    let proxy = Proxy::start(&origin).await;
    let ask = || proxy.get("/a");
    let open = async {
        origin.arrived("/a", 1).await;
        gate.open();
    };
    let (a, b, c, d, ()) = tokio::join!(ask(), ask(), ask(), ask(), open);
    for response in [a, b, c, d] {
        response.assert_status(502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_response_stands_in_for_one_that_breaks_off_before_its_body() {
    let origin = Origin::start().await;
    origin.on("/a", |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=60", "stored").header("ETag", "\"1\"").into(),
        _ => Script::new().send(CUT[0]).reset(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_is(200, "stored");
    let stale = proxy.get("/a").await;
    stale.assert_is(200, "stored");
    assert_eq!(stale.cache().get("detail"), Some("stale-if-error"), "{stale:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_before_its_first_byte_shows_its_head() {
    let origin = Origin::start().await;
    let lines = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked";
    let head = format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n{lines}\r\n\r\n");
    origin.always("/a", Script::new().send(&head).reset());
    let proxy = Proxy::start(&origin).await;
    for _ in 0..10 {
        let response = proxy.get("/a").await;
        response.assert_status(200);
        assert_eq!(response.end, End::Truncated, "{response:#?}");
        let client = H2Client::connect(proxy.addr).await;
        let request = client.to("GET", "/a").body(crate::support::ChannelBody::of("", &[]));
        let response = client.send(request.unwrap()).await.expect("a head");
        assert_eq!(response.status(), 200);
        assert!(http_body_util::BodyExt::collect(response.into_body()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_from_upstream_does_not_reach_the_client() {
    let both = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (_origin, _proxy, response) = upstream_says(both).await;
    response.assert_is(200, "hello");
    assert!(response.header("content-length").is_none_or(|n| n == "5"), "{response:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_reason_phrase_breaks_nothing() {
    for phrase in [&b" "[..], b"", b" \xff\xfe", b" a\tb", b" Very Long".repeat(50).as_slice()] {
        let bytes = [b"HTTP/1.1 200", phrase, b"\r\nContent-Length: 2\r\n\r\nok"].concat();
        let (_origin, _proxy, response) = upstream_says(&bytes).await;
        response.assert_is(200, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_status_code_is_passed_on() {
    let (_origin, _proxy, response) =
        upstream_says(b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok").await;
    response.assert_is(999, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_chunk_from_upstream_is_a_truncated_response() {
    let bytes =
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5\r\nhello\r\nzz\r\nworld\r\n0\r\n\r\n";
    let (origin, proxy, response) = upstream_says(bytes).await;
    let honest = response.status == 502 || response.end == End::Truncated;
    assert!(honest, "a malformed body looked whole: {response:#?}");
    let seen = origin.hits("/a");
    proxy.get("/a").await;
    assert_eq!(origin.hits("/a"), seen + 1, "a malformed body was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_response_are_not_the_next_response() {
    let origin = Origin::start().await;
    origin.always(
        "/a",
        Script::new()
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok")
            .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
    );
    origin.always("/b", Reply::ok("honest").header("Cache-Control", "no-store"));
    let proxy = Proxy::start(&origin).await;
    for _ in 0..10 {
        proxy.get("/a").await.assert_is(200, "ok");
        let next = proxy.get("/b").await;
        assert!(!next.text().contains("poison"), "{next:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_response_header_bytes_are_a_bad_gateway_and_not_a_crash() {
    let many = "X-Line: value\r\n".repeat(20_000);
    let head = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    let (_origin, _proxy, response) = upstream_says(head.as_bytes()).await;
    response.assert_status(502);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ranges_do_not_amplify() {
    let origin = Origin::start().await;
    let body = "0123456789".repeat(1000);
    origin.always("/a", Reply::cached("max-age=60", &body));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await;
    let ranges = format!("bytes={}", vec!["0-"; 500].join(","));
    let response = proxy.fetch("GET", "/a", &[("Range", &ranges)]).await;
    // So many are ignored (RFC 9110, section 14.2).
    response.assert_is(200, &body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unkeyed_host_override_cannot_poison_an_entry() {
    let origin = Origin::start().await;
    origin.on("/a", |r| {
        let host = r.header("x-forwarded-host").or(r.header("host")).unwrap_or("none");
        Reply::cached("max-age=60", format!("<a href=//{host}>"))
    });
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/a", &[("X-Forwarded-Host", "evil.test")]).await.assert_status(200);
    let victim = proxy.get("/a").await;
    assert!(!victim.text().contains("evil.test"), "{victim:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_that_changes_a_url_silently_can_poison_an_entry() {
    let origin = Origin::start().await;
    let names = [
        "forwarded",
        "front-end-https",
        "x-backend-host",
        "x-envoy-original-host",
        "x-envoy-original-path",
        "x-forwarded-host",
        "x-forwarded-host-override",
        "x-forwarded-protocol",
        "x-forwarded-ssl",
        "x-forwarded-uri",
        "x-http-host-override",
        "x-invoke-path",
        "x-middleware-subrequest",
        "x-original-uri",
        "x-scheme",
        "x-url-scheme",
    ];
    origin.on("/a", move |r| {
        let evil = r.head.headers.iter().find(|(_, value)| value.contains("evil"));
        Reply::cached("max-age=60", evil.map_or("good", |_| "evil"))
    });
    let proxy = Proxy::start(&origin).await;
    for name in names {
        for name in [name.to_owned(), name.replace('-', "_")] {
            let evil = proxy.fetch("GET", "/a", &[(&name, "evil")]).await;
            evil.assert_is(200, "evil");
            proxy.get("/a").await.assert_is(200, "good");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_policy_calls_silent_cannot_poison_an_entry() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.header("x-brand").unwrap_or("none")));
    let proxy = Setup::of(&origin).policy("silentHeaders: [X-Brand]").start().await;
    for brand in ["one", "two"] {
        proxy.fetch("GET", "/a", &[("X-Brand", brand)]).await.assert_is(200, brand);
    }
    proxy.get("/a").await.assert_is(200, "none");
    let again = proxy.fetch("GET", "/a", &[("X-Brand", "one")]).await;
    again.assert_is(200, "one").assert_hit();
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS of a GET whose scheme and length are literal too.
fn headers_of(scheme: &[u8], path: &[u8], authority: &[u8], length: Option<&[u8]>) -> Vec<u8> {
    let mut block = vec![0x82];
    for (index, value) in [(0x06, scheme), (0x04, path), (0x01, authority)] {
        block.extend([index, u8::try_from(value.len()).unwrap()]);
        block.extend(value);
    }
    if let Some(length) = length {
        block.extend([0x0f, 0x0d, u8::try_from(length.len()).unwrap()]);
        block.extend(length);
    }
    frame(1, 0x05, 1, &block)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_h2_requests_reach_nobody() {
    let origin = Origin::start().await;
    origin.on("*", |_| Reply::cached("max-age=60", "x"));
    let proxy = Proxy::start(&origin).await;
    let mut malformed = vec![
        headers_of(b"", b"/a", b"shop.test", None),
        headers_of(b"ftp", b"/a", b"shop.test", None),
        headers_of(b"http", b"*", b"shop.test", None),
        headers_of(b"http", b"#x", b"shop.test", None),
        headers_of(b"http", b"?x", b"shop.test", None),
        headers_of(b"http", b"", b"shop.test", None),
        headers_of(b"http", b"/a", b"shop.test", Some(b"")),
        headers_of(b"http", b"/a", b"shop.test", Some(b"+0")),
    ];
    let hosts = ["[::1", "::1]", ":80", "a:80:80", "a:99999", "%zz", "x[::1]:80", "user@a"];
    malformed.extend(hosts.map(|host| headers_of(b"http", b"/a", host.as_bytes(), None)));
    for request in malformed {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let ping = frame(6, 0, 0, b"12345678");
        stream.write_all(&[PREFACE, &request, &ping].concat()).await.unwrap();
        judged(&mut stream).await;
    }
    assert!(origin.all_requests().is_empty(), "{:#?}", origin.all_requests());
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    let good = headers_of(b"http", b"/a", b"shop.test", Some(b"0"));
    stream.write_all(&[PREFACE, &good].concat()).await.unwrap();
    origin.arrived("/a", 1).await;
}

/// Waits for the answer to the ping, or the end: the request has been judged.
async fn judged(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    within("an answer", async {
        while !seen.windows(8).any(|w| w == b"12345678") {
            if !matches!(stream.read_buf(&mut seen).await, Ok(n) if n > 0) {
                break;
            }
        }
    })
    .await;
}

/// HEADERS of a GET: literal fields, so that any byte can be put there.
fn headers(stream: u32, path: &[u8], authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (index, value) in [(0x04, path), (0x01, authority)] {
        block.extend([index, u8::try_from(value.len()).unwrap()]);
        block.extend(value);
    }
    frame(1, 0x05, stream, &block)
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection() {
    let origin = Origin::start().await;
    origin.always("/r", Script::new().hang());
    origin.always("/alive", Reply::ok("alive"));
    let proxy = Setup::of(&origin).config("limits: {h2ResetsMax: 50}").start().await;
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut flood = Vec::new();
    for n in 0..2000 {
        flood.extend(headers(2 * n + 1, b"/r", b"shop.test"));
        flood.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let (mut from, mut to) = stream.split();
    let (_, ended) = tokio::join!(
        async {
            // It may close before everything is written.
            let _ = to.write_all(&flood).await;
        },
        async {
            let mut bytes = Vec::new();
            let _ = within("the connection ends", from.read_to_end(&mut bytes)).await;
            bytes
        }
    );
    assert!(!ended.is_empty());
    assert!(origin.hits("/r") < 1000, "{} of 2000 went upstream", origin.hits("/r"));
    proxy.get("/alive").await.assert_is(200, "alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_settings_announce_the_limits() {
    let origin = Origin::start().await;
    let limits = "limits: {h2StreamsMax: 37, h2HeaderListBytesMax: 12345}";
    let proxy = Setup::of(&origin).config(limits).start().await;
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    within("a frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    within("its payload", stream.read_exact(&mut payload)).await.unwrap();
    let setting = |id: u8| {
        let found = payload.chunks(6).find(|s| s[0] == 0 && s[1] == id)?;
        Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
    };
    assert_eq!(setting(3), Some(37), "{payload:?}");
    assert_eq!(setting(6), Some(12345), "{payload:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_pseudo_fields_cannot_forge_an_http_1_request() {
    let origin = Origin::start().await;
    origin.on("*", |_| Reply::ok("x"));
    let proxy = Proxy::start(&origin).await;
    let forged: [(&[u8], &[u8]); 4] = [
        (b"/a HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled", b"shop.test"),
        (b"/a b", b"shop.test"),
        (b"/a", b"shop.test\r\nX-Evil: 1"),
        (b"a", b"shop.test"),
    ];
    for (path, authority) in forged {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let ping = frame(6, 0, 0, b"12345678");
        let bytes = [PREFACE, &headers(1, path, authority), &ping].concat();
        stream.write_all(&bytes).await.unwrap();
        judged(&mut stream).await;
    }
    proxy.get("/alive").await.assert_status(200);
    for seen in origin.all_requests() {
        assert_eq!(seen.target(), "/alive", "{seen:#?}");
        assert_eq!(seen.header("x-evil"), None);
    }
}
