//! The memory tier keeps to its budget, whatever the number of URLs. (`tests/bench/million` does a million.)

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use crate::support::{Origin, Outrigger, get};

const URLS: usize = 60_000;
const CLIENTS: usize = 8;
const BODY: usize = 4 * 1024;
const BUDGET: u64 = 32 << 20;
/// What the process may need beyond the budget: connections, buffers, and the allocator's slack.
const OVERHEAD: u64 = 30 << 20;

#[test]
fn distinct_urls_do_not_outgrow_the_budget() {
    let body = Bytes::from(vec![b'm'; BODY]);
    let origin = Origin::start(move |_| {
        Response::builder()
            .header("cache-control", "max-age=3600")
            .body(Full::new(body.clone()))
            .unwrap()
    });
    let config = "memory: {bytesMax: 32MiB}\ntelemetry: {accessLog: \"off\"}\n";
    let outrigger = Outrigger::run(&["--upstream", &origin.url()], config);

    assert!(!get(&outrigger.url("/first"), &[]).is_hit());
    assert!(get(&outrigger.url("/first"), &[]).is_hit(), "the tier stores");
    let before = outrigger.process.resident_bytes();

    let started = Instant::now();
    let load = std::thread::spawn({
        let address = outrigger.address.clone();
        move || load(&address)
    });
    let mut peak = before;
    while !load.is_finished() {
        peak = peak.max(outrigger.process.resident_bytes());
        std::thread::sleep(Duration::from_millis(50));
    }
    load.join().expect("every URL is answered");
    peak = peak.max(outrigger.process.resident_bytes());

    let mebibytes = |bytes: u64| bytes / (1 << 20);
    let growth = peak - before;
    println!(
        "{URLS} URLs in {:?}: resident {} MiB before, {} MiB at the peak",
        started.elapsed(),
        mebibytes(before),
        mebibytes(peak)
    );
    assert!(
        growth < BUDGET + OVERHEAD,
        "grew by {} MiB with a budget of {} MiB and {} MiB of overhead",
        mebibytes(growth),
        mebibytes(BUDGET),
        mebibytes(OVERHEAD)
    );
    // Not kept small by keeping nothing: about an eighth of all URLs fits the budget.
    let sample = || (0..URLS).step_by(URLS / 600);
    let hits =
        sample().filter(|number| get(&outrigger.url(&format!("/{number}")), &[]).is_hit()).count();
    println!("of {} URLs asked again, {hits} were hits", sample().count());
    // Which URLs stay is the admission policy's choice; that the budget is used is ours.
    assert!(hits > 0, "nothing is served from the tier");
    let held = outrigger.metric("outrigger_memory_bytes");
    assert!(held > BUDGET / 2, "the tier fills: {held} bytes");
}

/// Asks for every URL once, over a few kept connections.
fn load(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(ask(address.to_owned(), client));
        }
        while let Some(result) = clients.join_next().await {
            result.expect("a client gets all its answers");
        }
    });
}

async fn ask(address: String, client: usize) {
    let mut sender = connect(&address).await;
    for number in (client..URLS).step_by(CLIENTS) {
        let request = Request::builder()
            .uri(format!("/{number}"))
            .header("host", &address)
            .body(Empty::<Bytes>::new())
            .unwrap();
        if sender.ready().await.is_err() {
            sender = connect(&address).await;
        }
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "URL {number}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), BODY, "URL {number}");
    }
}

async fn connect(address: &str) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
