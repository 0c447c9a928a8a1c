//! What holds for a cache on either side: the inbound one before the app, in the callee's pod, and
//! the outbound one in the caller's pod, between its Envoy and the callee's. Each test is one body
//! over a [`Side`] and runs once for each of the two.
//!
//! What only one side promises is in `inbound.rs` and `outbound.rs`.

use crate::failing::{
    Failure, cached, fails_open, switches, switches_on_at_once, uncached, waits_for_a_slow_app,
};
use crate::pod::{Pod, Process, Version, World, possible};

/// A side of the mesh integration.
pub struct Side {
    /// The pod that the cache is in.
    pub pod: fn(&World) -> &Pod,
    /// Where its policy comes from: namespace, workload selector, name of the extension.
    policy: (&'static str, &'static str, &'static str),
    /// The cache as a cluster of its Envoy.
    cluster: &'static str,
    /// The Envoy before a cache that hangs; the other side has the other one …
    hangs_behind: Version,
    /// … and the one before a cache that is told to end.
    ends_behind: Version,
}

/// The cache of the callee.
pub const INBOUND: Side = Side {
    pod: |world| &world.reviews,
    policy: ("bookinfo", "{labels: {app: reviews}}", "outrigger/workload"),
    cluster: "outrigger-in-8080",
    hangs_behind: Version::Older,
    ends_behind: Version::Newer,
};

/// The cache of the caller.
pub const OUTBOUND: Side = Side {
    pod: |world| &world.frontend,
    policy: ("shop", "{}", "outrigger/namespace"),
    cluster: "outrigger-egress",
    hangs_behind: Version::Newer,
    ends_behind: Version::Older,
};

impl Side {
    /// An EnvoyFilter with a route for everything.
    fn policy(&self) -> String {
        let (namespace, selector, name) = self.policy;
        format!(
            "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: cache-policy, namespace: {namespace}}}
spec:
  workloadSelector: {selector}
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: {name}
        typed_config:
          \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/outrigger.v1.Policy
          value: {{routes: [{{name: all, match: {{path: {{prefix: /}}}}}}]}}
"
        )
    }

    /// Both pods, the cache in its own and in the way of requests, and `/item`, which may be cached.
    pub async fn cached(&self, version: Version) -> (World, Process) {
        cached(version, &self.policy(), self.pod).await
    }

    /// Both pods and the process of the cache, past which all requests go.
    pub async fn uncached(&self) -> (World, Process) {
        let world = uncached(&self.policy()).await;
        let outrigger = world.start_outrigger((self.pod)(&world)).await;
        (world, outrigger)
    }

    async fn fails_open(&self, version: Version, failure: Failure) {
        let (world, outrigger) = self.cached(version).await;
        fails_open(&world, (self.pod)(&world), outrigger, failure).await;
    }
}

/// Declares tests that run for each side.
macro_rules! for_each_side {
    ($(fn $name:ident($side:ident) $body:block)*) => {
        mod inbound {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                if possible() {
                    let $side = INBOUND;
                    $body
                }
            })*
        }

        mod outbound {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                if possible() {
                    let $side = OUTBOUND;
                    $body
                }
            })*
        }
    };
}

for_each_side! {
    fn the_second_request_is_answered_from_the_cache(side) {
        for version in [Version::Older, Version::Newer] {
            let (world, _outrigger) = side.cached(version).await;
            world.get("/item").await.assert_is(200, "item").assert_fwd("uri-miss");
            world.get("/item").await.assert_is(200, "item").assert_hit();
            assert_eq!(world.app.hits("/item"), 1);
            let request = world.app.last("/item");
            assert_clean(&request.head.headers);
            assert_eq!(request.header("host"), Some("reviews.bookinfo.svc.cluster.local:9080"));
        }
    }

    fn no_request_fails_when_the_cache_is_killed(side) {
        side.fails_open(Version::Older, Failure::Killed).await;
    }

    fn no_request_fails_when_the_cache_is_killed_behind_a_newer_envoy(side) {
        side.fails_open(Version::Newer, Failure::Killed).await;
    }

    fn no_request_fails_when_the_cache_hangs(side) {
        side.fails_open(side.hangs_behind, Failure::Stopped).await;
    }

    fn no_request_fails_when_the_cache_is_told_to_end(side) {
        side.fails_open(side.ends_behind, Failure::Terminated).await;
    }

    fn a_slow_app_is_waited_for(side) {
        let (world, _outrigger) = side.cached(Version::Older).await;
        waits_for_a_slow_app(&world).await;
    }

    fn no_request_fails_while_it_is_switched_on_and_off(side) {
        let (world, _outrigger) = side.uncached().await;
        switches(&world, (side.pod)(&world), side.cluster).await;
    }

    fn clusters_and_routes_in_one_push_lose_nothing(side) {
        let (world, _outrigger) = side.uncached().await;
        switches_on_at_once(&world, (side.pod)(&world)).await;
    }
}

/// Nothing that only Envoy and Outrigger tell each other is there.
pub fn assert_clean(headers: &[(String, String)]) {
    let ours = headers.iter().find(|(name, _)| name.to_lowercase().starts_with("x-outrigger-"));
    assert_eq!(ours, None);
}
