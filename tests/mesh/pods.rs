//! The pods themselves: that what the tests stand on is what a pod in Istio is.

use crate::pod::{FRONTEND, Namespace, REVIEWS, State, Version, World, possible};
use crate::support::{Origin, Reply, eventually};

/// A cache that only says that it was asked, in the place of Outrigger.
async fn stand_in(net: &Namespace, addr: &str) -> Origin {
    let cache = Origin::serve_on(net.listen(addr)).await;
    cache.on("*", |request| Reply::ok(format!("cache: {}", request.head.start)));
    cache
}

#[tokio::test]
async fn a_request_passes_both_envoys() {
    if !possible() {
        return;
    }
    for version in [Version::Older, Version::Newer] {
        let world = World::start(version).await;
        world.app.always("/", Reply::ok("app"));
        world.get("/").await.assert_is(200, "app");
        let request = world.app.last("/");
        assert_eq!(request.header("x-envoy-attempt-count"), Some("1"), "{request:?}");
        let connection = world.plane.connection(&REVIEWS.node_id()).unwrap();
        assert_eq!(connection.node.namespace, "bookinfo");
    }
}

#[tokio::test]
async fn requests_reach_a_cache_in_the_callees_pod() {
    if !possible() {
        return;
    }
    let world = World::start(Version::Older).await;
    world.app.always("/a", Reply::ok("app"));
    let cache = stand_in(&world.reviews.net, "127.0.0.1:15480").await;
    world.becomes(REVIEWS, State::Cache).await;
    let world = &world;
    eventually("the cache is asked", || async move {
        (world.get("/a").await.text() == "cache: GET /a HTTP/1.1").then_some(())
    })
    .await;
    let request = cache.last("/a");
    assert_eq!(request.header("x-outrigger-upstream"), Some("10.77.0.3:8080"));
    assert_eq!(request.header("x-outrigger-peer"), None);
    world.configure(REVIEWS, State::Plain);
    eventually("the app is asked again", || async move {
        (world.get("/a").await.text() == "app").then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_reach_a_cache_in_the_callers_pod() {
    if !possible() {
        return;
    }
    let world = World::start(Version::Older).await;
    world.app.always("/a", Reply::ok("app"));
    let cache = stand_in(&world.frontend.net, "127.0.0.1:15481").await;
    world.becomes(FRONTEND, State::Cache).await;
    let world = &world;
    eventually("the cache is asked", || async move {
        (world.get("/a").await.text() == "cache: GET /a HTTP/1.1").then_some(())
    })
    .await;
    assert_eq!(cache.last("/a").header("x-outrigger-orig-dst"), Some("10.78.0.10:9080"));
    let direct = world.request("GET", "/a", &[("x-outrigger-hop", "1")]).await;
    assert_eq!(direct.text(), "app", "a request of the cache itself is not led back to it");
}
