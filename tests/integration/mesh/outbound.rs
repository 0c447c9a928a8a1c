//! The outbound side: what the application in this pod calls, through Envoy a second time.

use serde_json::Value;

use super::OUTBOUND;
use crate::support::{Origin, Reply, Script};

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_goes_to_the_original_destination_marked_for_envoy() {
    let origin = OUTBOUND.origin().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let proxy = OUTBOUND.proxy("{}").await;
    let to = origin.addr.to_string();
    let fields =
        [("x-outrigger-orig-dst", to.as_str()), ("x-outrigger-peer", "spiffe://a/ns/b/sa/c")];
    proxy.fetch("GET", "/a", &fields).await.assert_is(200, "hello");
    proxy.fetch("GET", "/a", &fields).await.assert_is(200, "hello").assert_hit();
    let seen = origin.last("/a");
    assert_eq!(seen.header("x-outrigger-hop"), Some("1"), "{seen:#?}");
    assert_eq!(seen.header("x-outrigger-orig-dst"), None, "{seen:#?}");
    assert_eq!(seen.header("x-outrigger-peer"), None, "{seen:#?}");
    assert_eq!(seen.header("host"), Some("shop.test"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_envoy_sends_back_is_refused() {
    let origin = OUTBOUND.origin().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = OUTBOUND.proxy("{}").await;
    let to = origin.addr.to_string();
    let fields = [("x-outrigger-orig-dst", to.as_str()), ("x-outrigger-hop", "1")];
    let response = proxy.fetch("GET", "/a", &fields).await;
    response.assert_status(508);
    assert_eq!(response.cache().get("detail"), Some("hop"), "{response:#?}");
    assert_eq!(origin.hits("/a"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_itself_is_no_destination() {
    let local = Origin::start().await;
    local.always("/a", Reply::ok("secret"));
    let proxy = OUTBOUND.proxy("{}").await;
    let loopback = local.addr.to_string();
    for to in [loopback.as_str(), "10.77.0.3:8080", "169.254.169.254:80", "0.0.0.0:80"] {
        let response = proxy.fetch("GET", "/a", &[("x-outrigger-orig-dst", to)]).await;
        response.assert_status(403);
    }
    proxy.fetch("GET", "/a", &[]).await.assert_status(400);
    assert_eq!(local.hits("/a"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_that_fails_leaves_the_others_alone() {
    let origin = OUTBOUND.origin().await;
    origin.on("/a", |r| -> Script {
        if r.header("host") == Some("bad.test") {
            return Script::new().reply(Reply::new(503));
        }
        Script::new().reply(Reply::ok("fine"))
    });
    let proxy = OUTBOUND.proxy("guard: {breaker: {minRequests: 3, openFor: 60s}}").await;
    let to = origin.addr.to_string();
    let get = async |host| {
        let fields = [("host", host), ("x-outrigger-orig-dst", to.as_str())];
        proxy.fetch("GET", "/a", &fields).await
    };
    get("good.test").await.assert_is(200, "fine");
    for _ in 0..20 {
        get("bad.test").await.assert_status(503);
    }
    let reached = origin.hits("/a");
    get("bad.test").await.assert_status(503);
    assert_eq!(origin.hits("/a"), reached, "its breaker is open");
    get("good.test").await.assert_is(200, "fine");
    let guard: Value = serde_json::from_slice(&proxy.admin("/guard").await.body).unwrap();
    let state = |host: &str| {
        let name = format!("{host}:{}", origin.addr.port());
        let breakers = guard["breakers"].as_array().unwrap();
        let found = breakers.iter().find(|breaker| breaker["name"] == name);
        found.map(|breaker| breaker["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(state("bad.test").as_deref(), Some("open"), "{guard:#}");
    assert_eq!(state("good.test").as_deref(), Some("closed"), "{guard:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_passes_on_what_it_got_goes_through_both_sides() {
    let origin = OUTBOUND.origin().await;
    origin.always("/a", Reply::ok("x"));
    let local = Origin::start().await;
    local.always("/in", Reply::ok("x"));
    let pod = local.addr.to_string();
    let both = crate::support::Setup::mesh_both("127.0.0.1").start().await;
    let fields = [("x-outrigger-upstream", pod.as_str())];
    crate::support::fetch(both.addrs[0], "GET", "/in", &fields).await.assert_status(200);
    // The application calls on with the fields that it was sent.
    let hops = local.last("/in").header("cdn-loop").expect("a CDN-Loop").to_owned();
    let to = origin.addr.to_string();
    let fields = [("x-outrigger-orig-dst", to.as_str()), ("cdn-loop", hops.as_str())];
    crate::support::fetch(both.addrs[1], "GET", "/a", &fields).await.assert_status(200);
    // A second time round is a loop.
    let hops = origin.last("/a").header("cdn-loop").expect("a CDN-Loop").to_owned();
    let again = [("x-outrigger-upstream", pod.as_str()), ("cdn-loop", hops.as_str())];
    crate::support::fetch(both.addrs[0], "GET", "/in", &again).await.assert_status(508);
}
