//! Limits on what a client may send and how long it may take.

use std::time::{Duration, Instant};

use crate::support::{Origin, Proxy, Reply, Setup};

/// More than a limit of half a second takes, also on a busy machine, and less than any default.
const SOON: Duration = Duration::from_secs(8);

async fn limited(limits: &str) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("*", |_| Reply::ok("fine"));
    let proxy = Setup::of(&origin).config(&format!("limits: {{{limits}}}")).start().await;
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_header_bytes_are_refused() {
    let (origin, proxy) = limited("headerBytesMax: 8192").await;
    let long = "x".repeat(4000);
    proxy.fetch("GET", "/fits", &[("X-Long", &long)]).await.assert_is(200, "fine");
    let long = "x".repeat(20_000);
    let mut client = proxy.connect().await;
    client.request("GET", "/large", &[("X-Long", &long)]).await;
    client.response("GET").await.assert_status(431);
    client.rest_until_close().await;
    assert_eq!(origin.hits("/large"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_header_lines_are_refused() {
    let (origin, proxy) = limited("headerCountMax: 20").await;
    let lines = |n| vec![("X-Line", "v"); n];
    proxy.fetch("GET", "/fits", &lines(10)).await.assert_is(200, "fine");
    proxy.fetch("GET", "/many", &lines(60)).await.assert_status(431);
    assert_eq!(origin.hits("/many"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_target_is_refused_and_breaks_nothing() {
    let (origin, proxy) = limited("headerBytesMax: 8192").await;
    let path = format!("/{}", "p".repeat(30_000));
    // Longer than all fields may be together, not than a target may be by itself.
    proxy.get(&path).await.assert_status(431);
    assert_eq!(origin.all_requests().len(), 0);
    proxy.get("/a").await.assert_is(200, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_takes_too_long_ends_the_connection() {
    let (origin, proxy) = limited("headerReadTimeoutMs: 300").await;
    let began = Instant::now();
    let mut client = proxy.connect().await;
    client.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\nX-Never").await;
    let (bytes, _) = client.rest_until_close().await;
    assert_eq!(String::from_utf8_lossy(&bytes), "");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(origin.hits("/slow"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_does_not_stretch_its_time() {
    let (origin, proxy) = limited("headerReadTimeoutMs: 500").await;
    let mut client = proxy.connect().await;
    client.send("GET /drip HTTP/1.1\r\nHost: shop.test\r\nX-A: ").await;
    let began = Instant::now();
    let ended = async {
        loop {
            client.send("a").await;
            let wait = tokio::time::timeout(Duration::from_millis(100), client.rest_until_close());
            if wait.await.is_ok() {
                return;
            }
        }
    };
    crate::support::within("the connection ends", ended).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(origin.hits("/drip"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_a_time() {
    let (_origin, proxy) = limited("idleTimeoutMs: 400").await;
    let mut client = proxy.connect().await;
    client.get("/a", &[]).await.assert_is(200, "fine");
    // Still usable at once.
    client.get("/b", &[]).await.assert_is(200, "fine");
    let began = Instant::now();
    assert_eq!(client.rest_until_close().await.0, b"");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_says_anything_is_closed() {
    let (_origin, proxy) = limited("idleTimeoutMs: 400, headerReadTimeoutMs: 400").await;
    let mut client = proxy.connect().await;
    let began = Instant::now();
    let (bytes, _) = client.rest_until_close().await;
    assert_eq!(String::from_utf8_lossy(&bytes), "");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_h2_connection_is_closed_after_a_time() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_origin, proxy) = limited("idleTimeoutMs: 400, headerReadTimeoutMs: 400").await;
    let mut stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let began = Instant::now();
    let mut bytes = Vec::new();
    // An orderly end and a reset both are an end.
    let _ = crate::support::within("the end", stream.read_to_end(&mut bytes)).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(!bytes.is_empty(), "h2 never began");
}
