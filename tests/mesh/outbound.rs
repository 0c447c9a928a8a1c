//! The cache of the caller, in its pod: requests of the app go to its Envoy, to
//! Outrigger, to Envoy again and then to the callee.

use crate::failing::{
    Failure, cached, fails_open, switches, switches_on_at_once, uncached, waits_for_a_slow_app,
};
use crate::pod::{Process, Version, World, possible};

const POLICY: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: cache-policy, namespace: shop}
spec:
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: outrigger/namespace
        typed_config:
          \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/outrigger.v1.Policy
          value: {routes: [{name: all, match: {path: {prefix: /}}}]}
";

async fn world(version: Version) -> (World, Process) {
    cached(version, POLICY, |world| &world.frontend).await
}

#[tokio::test]
async fn the_second_request_stays_in_the_pod() {
    if !possible() {
        return;
    }
    for version in [Version::Older, Version::Newer] {
        let (world, _outrigger) = world(version).await;
        world.get("/item").await.assert_is(200, "item").assert_fwd("uri-miss");
        world.get("/item").await.assert_is(200, "item").assert_hit();
        assert_eq!(world.app.hits("/item"), 1);
        let request = world.app.last("/item");
        for field in ["x-outrigger-hop", "x-outrigger-orig-dst", "x-outrigger-upstream"] {
            assert_eq!(request.header(field), None, "{field} reached the callee");
        }
        assert_eq!(request.header("host"), Some("reviews.bookinfo.svc.cluster.local:9080"));
    }
}

#[tokio::test]
async fn a_post_goes_past_the_cache() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = world(Version::Older).await;
    let answer = world.request("POST", "/item", &[("content-length", "0")]).await;
    answer.assert_status(204);
    assert_eq!(answer.header("cache-status"), None);
    assert_eq!(world.app.hits("/item"), 1);
}

#[tokio::test]
async fn no_request_fails_when_the_cache_is_killed() {
    if possible() {
        let (world, outrigger) = world(Version::Older).await;
        fails_open(&world, &world.frontend, outrigger, Failure::Killed).await;
    }
}

#[tokio::test]
async fn no_request_fails_when_the_cache_is_killed_behind_a_newer_envoy() {
    if possible() {
        let (world, outrigger) = world(Version::Newer).await;
        fails_open(&world, &world.frontend, outrigger, Failure::Killed).await;
    }
}

#[tokio::test]
async fn no_request_fails_when_the_cache_hangs() {
    if possible() {
        let (world, outrigger) = world(Version::Newer).await;
        fails_open(&world, &world.frontend, outrigger, Failure::Stopped).await;
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
        let (world, outrigger) = world(Version::Older).await;
        fails_open(&world, &world.frontend, outrigger, Failure::Terminated).await;
    }
}

#[tokio::test]
async fn no_request_fails_while_it_is_switched_on_and_off() {
    if !possible() {
        return;
    }
    let world = uncached(POLICY).await;
    let _outrigger = world.start_outrigger(&world.frontend).await;
    switches(&world, &world.frontend, "outrigger-egress").await;
}

#[tokio::test]
async fn clusters_and_routes_in_one_push_lose_nothing() {
    if possible() {
        let world = uncached(POLICY).await;
        let _outrigger = world.start_outrigger(&world.frontend).await;
        switches_on_at_once(&world, &world.frontend).await;
    }
}
