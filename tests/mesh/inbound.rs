//! The cache before the app, in the callee's pod: requests of another pod pass
//! both Envoys, and Outrigger between the second one and the app.

use crate::failing::{Failure, fails_open};
use crate::pod::{REVIEWS, State, Version, possible};
use crate::sides::{INBOUND, assert_clean};

#[tokio::test]
async fn what_a_client_says_in_envoys_name_counts_for_nothing() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = INBOUND.cached(Version::Older).await;
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
    client.response("GET").await.assert_status(503);
    assert_eq!(world.app.hits("/item"), 1);
}

#[tokio::test]
async fn a_post_invalidates_what_is_stored() {
    if !possible() {
        return;
    }
    let (world, _outrigger) = INBOUND.cached(Version::Older).await;
    world.get("/item").await.assert_fwd("uri-miss");
    world.get("/item").await.assert_hit();
    world.request("POST", "/item", &[("content-length", "0")]).await.assert_status(204);
    world.get("/item").await.assert_is(200, "item").assert_fwd("uri-miss");
    assert_eq!(world.app.requests("/item").len(), 3);
}

#[tokio::test]
async fn by_a_sidecar_resource_it_caches_and_fails_open_too() {
    if possible() {
        let (world, outrigger) = INBOUND.uncached().await;
        world.becomes(REVIEWS, State::Sidecar).await;
        world.cache_answers("/item").await;
        let sent = ("x-outrigger-upstream", "127.0.0.1:15000");
        world.request("GET", "/item", &[sent]).await.assert_is(200, "item").assert_hit();
        // Its one route is for all methods, so that what a crash interrupts is not sent again.
        fails_open(&world, &world.reviews, outrigger, Failure::Terminated).await;
    }
}
