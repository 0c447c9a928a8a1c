//! Stale entries: when they are served, when not, and what happens behind.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Gate, Origin, Proxy, Reply, Request, Script, Setup, eventually};

/// First a reply with this `Cache-Control`, then whatever the closure says.
async fn first_then<S: Into<Script>>(
    control: &'static str,
    then: impl Fn(&Request) -> S + Send + Sync + 'static,
) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/s", move |r| match r.nth {
        1 => Reply::cached(control, "old").header("ETag", "\"v1\"").into(),
        _ => then(r).into(),
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/s").await.assert_is(200, "old");
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_while_revalidate_serves_at_once_and_refreshes_behind() {
    let gate = Gate::new();
    let held = gate.clone();
    let control = "max-age=0, stale-while-revalidate=600";
    let (origin, proxy) = first_then(control, move |_| {
        Script::new().gate(&held).reply(Reply::cached("max-age=600", "new"))
    })
    .await;
    // The origin holds the refresh; every client has its answer at once.
    for _ in 0..20 {
        let stale = proxy.get("/s").await;
        stale.assert_is(200, "old");
        assert!(stale.age().is_some(), "{stale:#?}");
    }
    origin.arrived("/s", 2).await;
    assert_eq!(origin.hits("/s"), 2, "one refresh for all");
    gate.open();
    let new = eventually("the refreshed entry", || async {
        let response = proxy.get("/s").await;
        (response.text() == "new").then_some(response)
    });
    new.await.assert_hit();
    assert_eq!(origin.hits("/s"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_keeps_the_stale_entry_and_is_tried_again() {
    let control = "max-age=0, stale-while-revalidate=600";
    let (origin, proxy) = first_then(control, |r| match r.nth {
        2 | 3 => Reply::new(503),
        _ => Reply::cached("max-age=600", "new"),
    })
    .await;
    eventually("a later refresh succeeds", || async {
        let response = proxy.get("/s").await;
        response.assert_status(200);
        (response.text() == "new").then_some(())
    })
    .await;
    assert!(origin.hits("/s") >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_if_error_serves_when_the_origin_answers_503() {
    for status in [500, 502, 503, 504] {
        let (origin, proxy) =
            first_then("max-age=0, stale-if-error=600", move |_| Reply::new(status).body("broken"))
                .await;
        let stale = proxy.get("/s").await;
        stale.assert_is(200, "old");
        assert!(stale.age().is_some(), "{stale:#?}");
        assert!(!stale.cache().is_absent());
        assert!(origin.hits("/s") >= 2, "the origin was asked first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_if_error_does_not_hide_a_404() {
    let (_origin, proxy) =
        first_then("max-age=0, stale-if-error=600", |_| Reply::new(404).body("gone")).await;
    proxy.get("/s").await.assert_is(404, "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_if_error_serves_when_the_origin_is_down() {
    let (mut origin, proxy) =
        first_then("max-age=0, stale-if-error=600", |_| Reply::new(500)).await;
    origin.stop().await;
    for _ in 0..3 {
        proxy.get("/s").await.assert_is(200, "old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_if_error_serves_when_the_origin_does_not_answer() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=0, stale-if-error=600", "old").into(),
        _ => Script::new().hang(),
    });
    let timeouts = "timeouts: {firstByteMs: 300}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).start().await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/s").await.assert_is(200, "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_permission_an_error_is_passed_on() {
    let (_origin, proxy) =
        first_then("max-age=0, must-revalidate", |_| Reply::new(503).body("broken")).await;
    proxy.get("/s").await.assert_is(503, "broken");
}

#[tokio::test(flavor = "multi_thread")]
async fn must_revalidate_forbids_stale_when_the_origin_is_down() {
    for control in [
        "max-age=0, must-revalidate, stale-if-error=600",
        "max-age=0, proxy-revalidate, stale-if-error=600",
        "no-cache, stale-if-error=600",
    ] {
        let (mut origin, proxy) = first_then(control, |_| Reply::new(500)).await;
        origin.stop().await;
        let error = proxy.get("/s").await;
        assert_eq!(error.status, 502, "{control}: {error:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_allows_stale_where_the_origin_says_nothing() {
    let origin = Origin::start().await;
    origin.on("/s", |r| match r.nth {
        1 => Reply::cached("max-age=1", "old").header("Age", "1"),
        _ => Reply::new(503).body("broken"),
    });
    let policy = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                  cache: {stale: {ifError: 10m}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/s").await.assert_is(200, "old");
    assert!(origin.hits("/s") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_does_not_allow_stale_where_the_origin_states_a_lifetime_of_zero() {
    let zero = [
        ("Cache-Control", "max-age=0"),
        ("Cache-Control", "public, max-age=0"),
        ("Expires", "0"),
        ("CDN-Cache-Control", "max-age=0"),
    ];
    for (name, value) in zero {
        let origin = Origin::start().await;
        origin.on("/s", move |r| match r.nth {
            1 => Reply::ok("old").header(name, value).header("ETag", "\"v1\""),
            _ => Reply::new(503).body("broken"),
        });
        let policy = "routes: [{name: all, cache: {stale: {ifError: 10m, whileRevalidate: 10m}}}]";
        let proxy = Setup::of(&origin).policy(policy).start().await;
        proxy.get("/s").await.assert_is(200, "old");
        proxy.get("/s").await.assert_is(503, "broken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_does_not_allow_stale_where_the_origin_forbids_it() {
    for control in ["max-age=0, must-revalidate", "s-maxage=0", "max-age=0, proxy-revalidate"] {
        let origin = Origin::start().await;
        origin.on("/s", move |r| match r.nth {
            1 => Reply::cached(control, "old").header("ETag", "\"v1\""),
            _ => Reply::new(503).body("broken"),
        });
        let policy = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                      cache: {stale: {ifError: 10m, whileRevalidate: 10m}}\n";
        let proxy = Setup::of(&origin).policy(policy).start().await;
        proxy.get("/s").await.assert_is(200, "old");
        proxy.get("/s").await.assert_is(503, "broken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_stale_while_revalidate_serves_at_once() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/s", move |r| {
        let reply = Reply::cached("max-age=1", r.nth.to_string()).header("Age", "1");
        if r.nth == 1 { reply.into() } else { Script::new().gate(&held).reply(reply) }
    });
    let policy = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                  cache: {stale: {whileRevalidate: 10m}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.get("/s").await.assert_is(200, "1");
    proxy.get("/s").await.assert_is(200, "1");
    origin.arrived("/s", 2).await;
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_if_cached_is_504_on_a_miss_and_a_hit_otherwise() {
    let origin = Origin::start().await;
    origin.always("/o", Reply::cached("max-age=600", "body"));
    let proxy = Proxy::start(&origin).await;
    let only = [("Cache-Control", "only-if-cached")];
    let miss = proxy.fetch("GET", "/o", &only).await;
    miss.assert_status(504);
    assert!(!miss.cache().has("hit"), "{miss:#?}");
    assert_eq!(origin.hits("/o"), 0);
    proxy.get("/o").await.assert_is(200, "body");
    proxy.fetch("GET", "/o", &only).await.assert_is(200, "body").assert_hit();
    assert_eq!(origin.hits("/o"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_ask_for_validation() {
    let (origin, proxy) =
        first_then("max-age=600", |_| Reply::new(304).header("ETag", "\"v1\"")).await;
    proxy.get("/s").await.assert_hit();
    let validated = proxy.fetch("GET", "/s", &[("Cache-Control", "no-cache")]).await;
    validated.assert_is(200, "old");
    assert_eq!(origin.hits("/s"), 2);
    assert_eq!(origin.last("/s").header("if-none-match"), Some("\"v1\""));
    proxy.get("/s").await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_limits_the_age_it_takes() {
    let (origin, proxy) = first_then("max-age=600", |_| Reply::cached("max-age=600", "new")).await;
    proxy.fetch("GET", "/s", &[("Cache-Control", "min-fresh=1000")]).await.assert_is(200, "new");
    proxy
        .fetch("GET", "/s", &[("Cache-Control", "max-age=500")])
        .await
        .assert_is(200, "new")
        .assert_hit();
    assert_eq!(origin.hits("/s"), 2);
}

/// A response that takes its time, is stale at once and may be served so for this long; a refresh
/// that hangs. Clients would wait for another one's fetch for ever.
async fn hung_refresh(takes: Duration, control: &'static str) -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/h", move |r| match r.nth {
        1 => Script::new().sleep(takes).reply(Reply::cached(control, "old")),
        2 => Script::new().hang(),
        _ => Reply::cached("max-age=600", "new").into(),
    });
    let config = "coalesce: {waitMsMax: 600000}";
    let timeouts = "timeouts: {firstByteMs: 600000}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).config(config).start().await;
    proxy.get("/h").await.assert_is(200, "old");
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_hangs_delays_nobody_after_the_stale_window() {
    let control = "max-age=0, stale-while-revalidate=3";
    let (origin, proxy) = hung_refresh(Duration::ZERO, control).await;
    proxy.get("/h").await.assert_is(200, "old");
    origin.arrived("/h", 2).await;
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    proxy.get("/h").await.assert_is(200, "new");
    proxy.get("/h").await.assert_is(200, "new").assert_hit();
    assert_eq!(origin.hits("/h"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_waited_for_a_refresh_that_hangs_one_fetches() {
    // It usually takes so long that the refresh is not given up before the window is over.
    let control = "max-age=0, stale-while-revalidate=6";
    let (origin, proxy) = hung_refresh(Duration::from_millis(1_500), control).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.get("/h").await.assert_is(200, "old");
    origin.arrived("/h", 2).await;
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let addr = proxy.addr;
        all.spawn(async move { crate::support::get(addr, "/h").await });
    }
    for response in all.join_all().await {
        response.assert_is(200, "new");
    }
    assert_eq!(origin.hits("/h"), 3);
}
