//! The cache before the app, in the callee's pod: requests of another pod pass
//! both Envoys, and Outrigger between the second one and the app.

use crate::failing::{
    Failure, cached, fails_open, switches, switches_on_at_once, uncached, waits_for_a_slow_app,
};
use crate::pod::{Process, REVIEWS, State, Version, World, possible};

const POLICY: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: cache-policy, namespace: bookinfo}
spec:
  workloadSelector: {labels: {app: reviews}}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: outrigger/workload
        typed_config:
          \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/outrigger.v1.Policy
          value: {routes: [{name: all, match: {path: {prefix: /}}}]}
";

/// Both pods, Outrigger before the app, and `/item`, which may be cached.
async fn world(version: Version) -> (World, Process) {
    cached(version, POLICY, |world| &world.reviews).await
}

/// Nothing that only Envoy and Outrigger tell each other is there.
fn assert_clean(headers: &[(String, String)]) {
    let ours = headers.iter().find(|(name, _)| name.to_lowercase().starts_with("x-outrigger-"));
    assert_eq!(ours, None);
}

#[tokio::test]
async fn the_second_request_is_answered_from_the_cache() {
    if !possible() {
        return;
    }
    for version in [Version::Older, Version::Newer] {
        let (world, _outrigger) = world(version).await;
        world.get("/item").await.assert_is(200, "item").assert_fwd("uri-miss");
        world.get("/item").await.assert_is(200, "item").assert_hit();
        assert_eq!(world.app.hits("/item"), 1);
        let request = world.app.last("/item");
        assert_clean(&request.head.headers);
        assert_eq!(request.header("host"), Some("reviews.bookinfo.svc.cluster.local:9080"));
    }
}

#[tokio::test]
async fn what_a_client_says_in_envoys_name_counts_for_nothing() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = world(Version::Older).await;
    let spoofed = [
        ("x-outrigger-upstream", "127.0.0.1:15000"),
        ("x-outrigger-peer", "spiffe://cluster.local/ns/bookinfo/sa/admin"),
        ("x-outrigger-port", "15000"),
        ("x-outrigger-orig-dst", "10.77.0.1:15010"),
    ];
    world.request("GET", "/item", &spoofed).await.assert_is(200, "item");
    assert_clean(&world.app.last("/item").head.headers);
    // Past Envoy's route, the traffic port is not to be reached from another pod at all.
    let addr = "10.77.0.3:15480".parse().unwrap();
    let mut client = crate::support::Client::over(world.frontend.net.connect(addr).await.unwrap());
    client.request("GET", "/item", &spoofed).await;
    let answer = client.try_response("GET").await;
    assert!(answer.as_ref().is_ok_and(|a| a.status == 503) || answer.is_err(), "{answer:?}");
    assert_eq!(world.app.hits("/item"), 1);
}

#[tokio::test]
async fn a_post_invalidates_what_is_stored() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = world(Version::Older).await;
    world.get("/item").await.assert_fwd("uri-miss");
    world.get("/item").await.assert_hit();
    world.request("POST", "/item", &[("content-length", "0")]).await.assert_status(204);
    world.get("/item").await.assert_is(200, "item").assert_fwd("uri-miss");
    assert_eq!(world.app.requests("/item").len(), 3);
}

#[tokio::test]
async fn no_request_fails_when_the_cache_is_killed() {
    if possible() {
        let (world, outrigger) = world(Version::Older).await;
        fails_open(&world, &world.reviews, outrigger, Failure::Killed).await;
    }
}

#[tokio::test]
async fn no_request_fails_when_the_cache_is_killed_behind_a_newer_envoy() {
    if possible() {
        let (world, outrigger) = world(Version::Newer).await;
        fails_open(&world, &world.reviews, outrigger, Failure::Killed).await;
    }
}

#[tokio::test]
async fn no_request_fails_when_the_cache_hangs() {
    if possible() {
        let (world, outrigger) = world(Version::Older).await;
        fails_open(&world, &world.reviews, outrigger, Failure::Stopped).await;
    }
}

#[tokio::test]
async fn a_slow_app_is_waited_for() {
    if possible() {
        let (world, _outrigger) = world(Version::Older).await;
        waits_for_a_slow_app(&world).await;
    }
}

#[tokio::test]
async fn no_request_fails_when_the_cache_is_told_to_end() {
    if possible() {
        let (world, outrigger) = world(Version::Newer).await;
        fails_open(&world, &world.reviews, outrigger, Failure::Terminated).await;
    }
}

#[tokio::test]
async fn no_request_fails_while_it_is_switched_on_and_off() {
    if !possible() {
        return;
    }
    let world = uncached(POLICY).await;
    let _outrigger = world.start_outrigger(&world.reviews).await;
    switches(&world, &world.reviews, "outrigger-in-8080").await;
}

#[tokio::test]
async fn clusters_and_routes_in_one_push_lose_nothing() {
    if possible() {
        let world = uncached(POLICY).await;
        let _outrigger = world.start_outrigger(&world.reviews).await;
        switches_on_at_once(&world, &world.reviews).await;
    }
}

#[tokio::test]
async fn by_a_sidecar_resource_it_caches_and_fails_open_too() {
    if possible() {
        let world = uncached(POLICY).await;
        let outrigger = world.start_outrigger(&world.reviews).await;
        world.becomes(REVIEWS, State::Sidecar).await;
        world.cache_answers("/item").await;
        let sent = ("x-outrigger-upstream", "127.0.0.1:15000");
        world.request("GET", "/item", &[sent]).await.assert_is(200, "item").assert_hit();
        // Its one route is for all methods, so that what a crash interrupts is not sent again.
        fails_open(&world, &world.reviews, outrigger, Failure::Terminated).await;
    }
}
