//! How long a request may take: the route's deadlines, and what its caller has left.

use std::time::{Duration, Instant};

use super::{breaker_state, guarded};
use crate::support::{Gate, Origin, Proxy, Reply, Script, eventually};

const LEFT: (&str, &str) = ("x-envoy-expected-rq-timeout-ms", "200");

#[tokio::test(flavor = "multi_thread")]
async fn no_request_waits_longer_than_its_caller() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::cached("max-age=60", "late")));
    let proxy = Proxy::start(&origin).await;
    for (method, path, header) in [
        ("GET", "/miss", LEFT),
        ("DELETE", "/bypass", LEFT),
        ("GET", "/grpc", ("grpc-timeout", "200m")),
    ] {
        let began = Instant::now();
        let response = proxy.fetch(method, path, &[header]).await;
        response.assert_status(504);
        assert_eq!(response.cache().get("detail"), Some("caller-deadline"), "{response:#?}");
        assert!(began.elapsed() >= Duration::from_millis(190), "{path}");
    }
    gate.open();
    eventually("the fetch went on for those who come next", || async {
        let response = proxy.get("/miss").await;
        response.cache().has("hit").then_some(response)
    })
    .await
    .assert_is(200, "late");
    assert_eq!(origin.hits("/miss"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_whose_time_is_over_is_told_so_in_its_own_terms() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("late")));
    let proxy = Proxy::start(&origin).await;
    let call = [("content-type", "application/grpc"), ("grpc-timeout", "200m")];
    let response = proxy.fetch("POST", "/pkg.Service/Method", &call).await;
    // A 504 would be UNAVAILABLE to the client, which it may send again.
    response.assert_is(200, "");
    assert_eq!(response.header("grpc-status"), Some("4"), "{response:#?}");
    assert_eq!(response.header("content-type"), Some("application/grpc"));
    assert_eq!(response.cache().get("detail"), Some("caller-deadline"), "{response:#?}");
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_leaves_when_its_caller_does_and_the_leader_stays() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/a", Script::new().gate(&gate).reply(Reply::cached("max-age=60", "late")));
    let proxy = Proxy::start(&origin).await;
    let mut leader = proxy.connect().await;
    leader.request("GET", "/a", &[]).await;
    origin.arrived("/a", 1).await;
    proxy.fetch("GET", "/a", &[LEFT]).await.assert_status(504);
    gate.open();
    leader.response("GET").await.assert_is(200, "late");
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_bridges_a_callers_deadline() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/s", move |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=600", "old").into(),
        _ => Script::new().gate(&held).reply(Reply::new(503)),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.fetch("GET", "/s", &[LEFT]).await.assert_is(200, "old");
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_deadline_is_not_told_to_an_upstream_that_fetches_for_all() {
    let origin = Origin::start().await;
    origin.always("*", Reply::cached("max-age=60", "fine"));
    let proxy = Proxy::start(&origin).await;
    proxy.fetch("GET", "/a", &[("x-envoy-expected-rq-timeout-ms", "5000")]).await;
    assert_eq!(origin.last("/a").header("x-envoy-expected-rq-timeout-ms"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_ignore_what_callers_say() {
    let origin = Origin::start().await;
    let slow = Duration::from_millis(300);
    origin.always("*", Script::new().sleep(slow).reply(Reply::ok("fine")));
    let proxy = guarded(&origin, "{callerDeadline: ignore}").await;
    proxy.fetch("GET", "/a", &[("x-envoy-expected-rq-timeout-ms", "50")]).await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn impatient_callers_do_not_open_the_breaker() {
    let origin = Origin::start().await;
    let slow = Duration::from_millis(100);
    origin.always("*", Script::new().sleep(slow).reply(Reply::ok("fine")));
    let proxy = guarded(&origin, "{breaker: {minRequests: 2}}").await;
    for n in 0..6 {
        let header = ("x-envoy-expected-rq-timeout-ms", "10");
        proxy.fetch("DELETE", &format!("/{n}"), &[header]).await.assert_status(504);
    }
    assert_eq!(breaker_state(&proxy).await, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_deadlines_for_each_phase() {
    let origin = Origin::start().await;
    origin.always("/head", Script::new().hang());
    let lines = [("Content-Length", "100"), ("Cache-Control", "no-store")];
    origin.always("/body", Script::new().send(crate::support::head(200, &lines)).hang());
    let guard = "{connectTimeout: 300ms, tlsTimeout: 300ms, firstByteTimeout: 200ms, \
                 idleTimeout: 200ms}";
    let proxy = guarded(&origin, guard).await;
    let head = proxy.get("/head").await;
    head.assert_status(504);
    assert_eq!(head.cache().get("detail"), Some("first-byte-timeout"));
    assert_eq!(proxy.get("/body").await.end, crate::support::End::Truncated);
}
