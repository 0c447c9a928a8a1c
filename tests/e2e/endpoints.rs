//! Several endpoints behind one Outrigger: who gets which request, and what happens when one is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;

use crate::support::{
    BELOW_DEFAULT_INTERVAL, Origin, Outrigger, free_port, get, request, wait_until,
};

/// An origin that says who it is, in `served-by`, and answers its health check as told.
struct Endpoint {
    name: String,
    address: String,
    requests: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
    well: Arc<AtomicBool>,
    _origin: Origin,
}

impl Endpoint {
    fn start(name: &str) -> Self {
        let (requests, checks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let well = Arc::new(AtomicBool::new(true));
        let answer = {
            let (name, well) = (name.to_owned(), Arc::clone(&well));
            let (requests, checks) = (Arc::clone(&requests), Arc::clone(&checks));
            move |request: &http::Request<hyper::body::Incoming>| {
                let status = if request.uri().path() == "/healthz" {
                    checks.fetch_add(1, Ordering::SeqCst);
                    if well.load(Ordering::SeqCst) { 200 } else { 503 }
                } else {
                    requests.fetch_add(1, Ordering::SeqCst);
                    200
                };
                Response::builder()
                    .status(status)
                    .header("served-by", &name)
                    .header("cache-control", "no-store")
                    .body(Full::new(Bytes::from_static(b"ok")))
                    .unwrap()
            }
        };
        let origin = Origin::start(answer);
        let (name, address) = (name.to_owned(), origin.address.to_string());
        Self { name, address, requests, checks, well, _origin: origin }
    }

    fn three() -> Vec<Self> {
        ["a", "b", "c"].map(Self::start).into()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn in_front_of<'a>(addresses: impl IntoIterator<Item = &'a str>, settings: &str) -> Outrigger {
    let addresses: Vec<_> = addresses.into_iter().map(|address| format!("{address:?}")).collect();
    Outrigger::run(
        &[],
        &format!(
            "workers: 2\nupstream: {{url: \"http://service.test\", endpoints: [{}]{settings}}}\n",
            addresses.join(", ")
        ),
    )
}

fn in_front_of_all(endpoints: &[Endpoint], settings: &str) -> Outrigger {
    in_front_of(endpoints.iter().map(|endpoint| endpoint.address.as_str()), settings)
}

/// Who serves each of these keys; every request has to be answered.
#[track_caller]
fn servers_of(outrigger: &Outrigger, keys: usize) -> HashMap<usize, String> {
    let serve = |key: usize| {
        let reply = get(&outrigger.url(&format!("/key/{key}")), &[]);
        assert_eq!(reply.status, 200, "key {key}: {}", reply.cache_status());
        (key, reply.header("served-by").to_owned())
    };
    (0..keys).map(serve).collect()
}

/// How many of these each endpoint serves.
fn shares(servers: &HashMap<usize, String>) -> HashMap<&str, usize> {
    let mut shares = HashMap::new();
    for name in servers.values() {
        *shares.entry(name.as_str()).or_default() += 1;
    }
    shares
}

fn healthy(outrigger: &Outrigger) -> u64 {
    outrigger.metric("outrigger_upstream_endpoints_healthy")
}

fn wait_until_healthy(outrigger: &Outrigger, count: u64) {
    let what = format!("{count} healthy endpoints");
    wait_until(&what, BELOW_DEFAULT_INTERVAL, || healthy(outrigger) == count);
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let endpoints = Endpoint::three();
    let outrigger = in_front_of_all(&endpoints, "");
    assert_eq!(outrigger.metric("outrigger_upstream_endpoints"), 3);
    for _ in 0..30 {
        assert_eq!(get(&outrigger.url("/one-key"), &[]).status, 200);
    }
    for endpoint in &endpoints {
        assert_eq!(endpoint.requests(), 10, "{}", endpoint.name);
    }
}

#[test]
fn consistent_hash_keeps_a_key_on_its_endpoint() {
    let endpoints = Endpoint::three();
    let outrigger = in_front_of_all(&endpoints, ", balance: consistentHash");
    let servers = servers_of(&outrigger, 120);
    let shares = shares(&servers);
    assert!(shares.len() == 3 && shares.values().all(|share| *share >= 10), "{shares:?}");
    for _ in 0..2 {
        assert_eq!(servers_of(&outrigger, 120), servers);
    }
    // Another process finds the same ones: the choice depends on nothing else.
    let another = in_front_of_all(&endpoints, ", balance: consistentHash");
    let host = outrigger.address.as_str();
    for (key, name) in servers.iter().take(40) {
        let reply = get(&another.url(&format!("/key/{key}")), &[("host", host)]);
        assert_eq!(reply.header("served-by"), name, "key {key}");
    }
}

#[test]
fn consistent_hash_moves_only_the_keys_of_an_endpoint_that_is_gone() {
    let mut endpoints = Endpoint::three();
    let outrigger = in_front_of_all(&endpoints, ", balance: consistentHash");
    let before = servers_of(&outrigger, 60);
    let gone = endpoints.remove(0).name;
    let after = servers_of(&outrigger, 60);
    for (key, name) in &before {
        if *name == gone {
            assert_ne!(after[key], gone, "key {key}");
        } else {
            assert_eq!(after[key], *name, "key {key}");
        }
    }
    assert_eq!(servers_of(&outrigger, 60), after, "the keys stay where they went");
}

#[test]
fn a_closed_port_costs_no_request_even_without_a_health_check() {
    for balance in ["roundRobin", "consistentHash"] {
        let endpoints = [Endpoint::start("a"), Endpoint::start("b")];
        let closed = format!("127.0.0.1:{}", free_port());
        let addresses = [&endpoints[0].address, &closed, &endpoints[1].address];
        let outrigger = in_front_of(
            addresses.map(String::as_str),
            &format!(", balance: {balance}, pool: {{idleConnectionsMax: 0}}"),
        );
        let servers = servers_of(&outrigger, 30);
        assert_eq!(shares(&servers).len(), 2, "{balance}: {servers:?}");
        // Nothing was sent where no connection was opened, so that any request can go elsewhere.
        for key in 0..15 {
            let url = outrigger.url(&format!("/key/{key}"));
            for body in ["", "body"] {
                let reply = request(Method::POST, &url, &[], body);
                assert_eq!(reply.status, 200, "{balance}, POST {key}: {}", reply.cache_status());
            }
        }
        let total: usize = endpoints.iter().map(Endpoint::requests).sum();
        assert_eq!(total, 60, "{balance}: each request reached an endpoint once");
    }
}

#[test]
fn more_closed_ports_than_open_ones_cost_no_request() {
    let endpoint = Endpoint::start("a");
    let closed: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let addresses = closed.iter().chain([&endpoint.address]);
    let outrigger = in_front_of(addresses.map(String::as_str), "");
    assert_eq!(shares(&servers_of(&outrigger, 20)), HashMap::from([("a", 20)]));
}

#[test]
fn with_every_port_closed_the_answer_is_an_error() {
    for count in [1, 3] {
        let closed: Vec<_> = (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let outrigger = in_front_of(closed.iter().map(String::as_str), "");
        let reply = get(&outrigger.url("/"), &[]);
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(reply.cache_says("detail=connect-failed"), "{}", reply.cache_status());
    }
}

#[test]
fn an_endpoint_that_dies_costs_no_request() {
    let mut endpoints = Endpoint::three();
    let outrigger = in_front_of_all(&endpoints, "");
    // Connections to all of them are kept from these.
    assert_eq!(shares(&servers_of(&outrigger, 12)).len(), 3);
    drop(endpoints.pop());
    let shares_after = servers_of(&outrigger, 30);
    assert_eq!(shares(&shares_after).len(), 2, "{shares_after:?}");
}

#[test]
fn an_endpoint_that_fails_its_check_gets_no_traffic_until_it_passes() {
    for balance in ["roundRobin", "consistentHash"] {
        let endpoints = Endpoint::three();
        let ill = &endpoints[1];
        ill.well.store(false, Ordering::SeqCst);
        let check = "healthCheck: {path: /healthz, intervalMs: 100}";
        let outrigger = in_front_of_all(&endpoints, &format!(", balance: {balance}, {check}"));
        wait_until_healthy(&outrigger, 2);

        let before = ill.requests();
        let servers = servers_of(&outrigger, 40);
        assert_eq!(ill.requests(), before, "{balance}");
        let shares = shares(&servers);
        assert!(shares.len() == 2 && shares.values().all(|share| *share >= 5), "{shares:?}");
        assert!(endpoints.iter().all(|endpoint| endpoint.checks.load(Ordering::SeqCst) > 0));

        ill.well.store(true, Ordering::SeqCst);
        wait_until_healthy(&outrigger, 3);
        assert_eq!(self::shares(&servers_of(&outrigger, 40)).len(), 3, "{balance}");
    }
}

#[test]
fn without_a_path_the_check_is_a_connection() {
    let endpoints = [Endpoint::start("a"), Endpoint::start("b")];
    endpoints[1].well.store(false, Ordering::SeqCst);
    let closed = format!("127.0.0.1:{}", free_port());
    let addresses = [&endpoints[0].address, &closed, &endpoints[1].address];
    let outrigger = in_front_of(addresses.map(String::as_str), ", healthCheck: {intervalMs: 100}");
    wait_until_healthy(&outrigger, 2);
    assert_eq!(shares(&servers_of(&outrigger, 20)).len(), 2);
    assert_eq!(endpoints[1].checks.load(Ordering::SeqCst), 0);
}

/// A wrong check must not take a service down that works.
#[test]
fn with_every_endpoint_failing_its_check_all_of_them_are_tried() {
    for names in [&["a", "b"][..], &["a", "b", "c"]] {
        let endpoints: Vec<_> = names.iter().copied().map(Endpoint::start).collect();
        for endpoint in &endpoints {
            endpoint.well.store(false, Ordering::SeqCst);
        }
        let check = ", healthCheck: {path: /healthz, intervalMs: 100}";
        let outrigger = in_front_of_all(&endpoints, check);
        wait_until_healthy(&outrigger, 0);
        let servers = servers_of(&outrigger, 24);
        assert_eq!(shares(&servers).len(), names.len(), "{servers:?}");
    }
}

/// Nor may it keep requests from an endpoint that can be reached, when the first choice cannot.
#[test]
fn a_closed_port_costs_no_request_when_every_check_fails() {
    for balance in ["roundRobin", "consistentHash"] {
        let endpoints = [Endpoint::start("a"), Endpoint::start("b")];
        for endpoint in &endpoints {
            endpoint.well.store(false, Ordering::SeqCst);
        }
        let closed = format!("127.0.0.1:{}", free_port());
        let check = "healthCheck: {path: /healthz, intervalMs: 100}";
        let outrigger = in_front_of(
            [closed.as_str(), &endpoints[0].address, &endpoints[1].address],
            &format!(", balance: {balance}, {check}"),
        );
        wait_until_healthy(&outrigger, 0);
        assert_eq!(servers_of(&outrigger, 24).len(), 24);
    }
}
