//! Serving what is stored while the upstream fails, without asking it each time.

use super::{guarded, state};
use crate::support::{Origin, Reply, eventually};

const PATIENT: &str = "{backoff: {first: 60s, max: 60s}, breaker: {enabled: false}}";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_validation_the_upstream_is_left_alone_for_a_while() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=600", "old"),
        _ => Reply::new(503),
    });
    let proxy = guarded(&origin, PATIENT).await;
    proxy.get("/s").await.assert_is(200, "old");
    let first = proxy.get("/s").await;
    assert_eq!(first.cache().get("detail"), Some("stale-if-error"), "{first:#?}");
    for _ in 0..9 {
        let later = proxy.get("/s").await;
        later.assert_is(200, "old").assert_hit();
        assert_eq!(later.cache().get("detail"), Some("stale-back-off"), "{later:#?}");
    }
    assert_eq!(origin.hits("/s"), 2);
    let explained = proxy.admin("/explain?url=http://shop.test/s").await.text();
    assert!(explained.contains("\"failedValidations\": 1"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_is_not_repeated_at_once() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-while-revalidate=600", "old"),
        _ => Reply::new(503),
    });
    let guard = "{backoff: {first: 60s, max: 60s}, refreshes: {jitter: 0ms}}";
    let proxy = guarded(&origin, guard).await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/s").await.assert_is(200, "old");
    origin.arrived("/s", 2).await;
    eventually("the failure is known", || async {
        let explained = proxy.admin("/explain?url=http://shop.test/s").await.text();
        explained.contains("\"failedValidations\": 1").then_some(())
    })
    .await;
    for _ in 0..9 {
        proxy.get("/s").await.assert_is(200, "old");
    }
    assert_eq!(origin.hits("/s"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_served_stale_is_asked_for_each_time() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=0, must-revalidate", "old"),
        _ => Reply::new(503),
    });
    let proxy = guarded(&origin, PATIENT).await;
    proxy.get("/s").await.assert_is(200, "old");
    for _ in 0..3 {
        proxy.get("/s").await.assert_status(503);
    }
    assert_eq!(origin.hits("/s"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_outage_ends_the_back_off() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=600", "old"),
        2 => Reply::new(503),
        _ => Reply::cached("max-age=60", "new"),
    });
    origin.always("*", Reply::new(503));
    let guard = "{backoff: {first: 60s, max: 60s}, breaker: {minRequests: 4, openFor: 100ms}}";
    let proxy = guarded(&origin, guard).await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/s").await.assert_is(200, "old");
    for n in 0..4 {
        proxy.get(&format!("/{n}")).await;
    }
    assert_eq!(state(&proxy).await["breakers"][0]["state"], "open");
    origin.always("*", Reply::ok("fine"));
    eventually("the stored response is validated again", || async {
        proxy.get("/probe").await;
        (proxy.get("/s").await.text() == "new").then_some(())
    })
    .await;
}
