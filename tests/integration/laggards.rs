//! Readers of one fetch that take its bytes at different speeds.

use std::time::Duration;

use http_body_util::BodyExt;

use crate::support::{
    ChannelBody, Client, End, Gate, H2Client, H2Origin, Origin, Proxy, Script, Setup, chunk, head,
    last_chunk, metric, within,
};

/// More than all the buffers between the origin and a client hold.
const LARGE: usize = 24 << 20;
/// So few bytes may be stored that a large body is not; a client may stall for as long as it likes.
const CONFIG: &str = "memory: {bytesMax: 64MiB, objectBytesMax: 1MiB}
limits: {writeStallTimeoutMs: 600000}
";

async fn cut(proxy: &Proxy) -> f64 {
    metric(proxy, "outrigger_coalesce_readers_cut_total", &[]).await
}

/// Clients that have joined one fetch for a body that ends after so many bytes in chunks, or goes on
/// for ever without a declared length. The gate holds the body.
async fn sharing(clients: usize, bytes: Option<usize>) -> (Origin, Proxy, Gate, Vec<Client>) {
    let (origin, gate) = (Origin::start().await, Gate::new());
    let control = ("Cache-Control", "max-age=60");
    let script = match bytes {
        Some(bytes) => {
            let piece = chunk(vec![b'x'; 64 << 10]);
            let lines = [control, ("Transfer-Encoding", "chunked")];
            let script = Script::new().send(head(200, &lines)).gate(&gate);
            script.send(piece.repeat(bytes / (64 << 10))).send(last_chunk(&[]))
        }
        None => Script::new().send(head(200, &[control])).gate(&gate).flood(),
    };
    origin.always("/large", script);
    let proxy = Setup::of(&origin).config(CONFIG).start().await;
    let mut all = Vec::new();
    for _ in 0..clients {
        let mut client = proxy.connect().await;
        client.request("GET", "/large", &[]).await;
        client.final_head().await;
        all.push(client);
    }
    assert_eq!(origin.hits("/large"), 1, "they share one fetch");
    (origin, proxy, gate, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_of_a_chunked_body_is_cut_loose_and_the_others_get_all_of_it() {
    let (origin, proxy, gate, mut clients) = sharing(3, Some(LARGE)).await;
    gate.open();
    let mut stalled = clients.remove(0);
    let quick = clients.into_iter().map(|mut client| async move { client.chunked().await });
    let [one, two] =
        quick.map(|reading| tokio::spawn(reading)).collect::<Vec<_>>().try_into().unwrap();
    for reading in [one, two] {
        let (body, _, whole) = reading.await.unwrap();
        assert!(whole && body.len() == LARGE, "{} bytes", body.len());
    }
    assert_eq!(cut(&proxy).await, 1.0);
    // It has what had gone to it, and a broken end.
    let (body, _, whole) = stalled.chunked().await;
    assert!(!whole && body.len() < LARGE, "{} bytes", body.len());
    assert_eq!(origin.hits("/large"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_of_a_body_without_a_length_holds_nobody_back() {
    let (_origin, proxy, gate, mut clients) = sharing(2, None).await;
    gate.open();
    let _stalled = clients.remove(0);
    assert_eq!(clients[0].exactly(LARGE).await.len(), LARGE);
    assert_eq!(cut(&proxy).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_much_slower_is_cut_loose_too() {
    let (_origin, proxy, gate, mut clients) = sharing(2, None).await;
    gate.open();
    let mut slow = clients.remove(0);
    let reading = tokio::spawn(async move {
        // A megabyte in a second: with it the other would need the whole patience of the tests.
        while slow.exactly(32 << 10).await.len() == 32 << 10 {
            tokio::time::sleep(Duration::from_millis(32)).await;
        }
    });
    assert_eq!(clients[0].exactly(LARGE).await.len(), LARGE);
    assert_eq!(cut(&proxy).await, 1.0);
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_are_all_slow_slow_the_origin_and_nobody_is_cut_loose() {
    let (origin, proxy, gate, _clients) = sharing(3, None).await;
    gate.open();
    let (mut last, mut still) = (0, 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = origin.flooded();
        assert!(now < 96 << 20, "{now} bytes went into the proxy for clients that read none");
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
    assert_eq!(cut(&proxy).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_of_http_2_is_reset_and_its_neighbour_goes_on() {
    let (origin, proxy, gate, mut clients) = sharing(1, None).await;
    let client = H2Client::connect(proxy.addr).await;
    let request = client.to("GET", "/large").body(ChannelBody::of("", &[])).unwrap();
    let mut stalled = client.send(request).await.unwrap().into_body();
    assert_eq!(origin.hits("/large"), 1, "they share one fetch");
    gate.open();
    assert_eq!(clients[0].exactly(LARGE).await.len(), LARGE);
    assert_eq!(cut(&proxy).await, 1.0);
    let broken = within("the stream is reset", async {
        loop {
            match stalled.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return true,
                None => return false,
            }
        }
    });
    assert!(broken.await, "it ended as if it were whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_what_is_stored_may_take_its_time() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let piece = chunk(vec![b'x'; 64 << 10]);
    let lines = [("Cache-Control", "max-age=60"), ("Transfer-Encoding", "chunked")];
    let script = Script::new().send(head(200, &lines)).gate(&gate);
    origin.always("/big", script.send(piece.repeat(100)).send(last_chunk(&[])));
    let proxy = Proxy::start(&origin).await;
    let mut slow = proxy.connect().await;
    slow.request("GET", "/big", &[]).await;
    origin.arrived("/big", 1).await;
    gate.open();
    let quick = proxy.get("/big").await;
    assert_eq!((quick.body.len(), quick.end), (100 * (64 << 10), End::Chunked));
    let slow = slow.response("GET").await;
    assert_eq!((slow.body.len(), slow.end), (100 * (64 << 10), End::Chunked));
    assert_eq!(cut(&proxy).await, 0.0);
}

/// Responses of an HTTP/2 upstream share a connection and its flow control (RFC 9113 §5.2).
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stall_do_not_stop_others_of_an_upstream_that_speaks_http_2() {
    let origin = H2Origin::start(|seen| {
        let bytes = if seen.path.starts_with("/large") { LARGE } else { 1 << 20 };
        let response = http::Response::builder().header("cache-control", "no-store");
        response.body(ChannelBody::of(vec![b'x'; bytes], &[])).unwrap()
    })
    .await;
    let config = format!("{CONFIG}workers: 1\n");
    let proxy = Setup::upstream(origin.url()).config(&config).start().await;
    let mut stalled = Vec::new();
    for n in 0..6 {
        let mut client = proxy.connect().await;
        client.request("GET", &format!("/large/{n}"), &[]).await;
        client.final_head().await;
        stalled.push(client);
    }
    for n in 0..40 {
        let other = proxy.get(&format!("/other/{n}")).await;
        assert_eq!((other.body.len(), other.end), (1 << 20, End::Chunked), "{n}");
    }
}
