//! Several endpoints of which some fail.

use super::state;
use crate::support::{Origin, Proxy, Reply, Script, Setup, eventually};

async fn before(origins: &[&Origin], ejection: &str) -> Proxy {
    let list: Vec<String> = origins.iter().map(|o| format!("\"{}\"", o.addr)).collect();
    Setup::upstream("http://shop.test")
        .upstream_line(&format!("endpoints: [{}]", list.join(", ")))
        .upstream_line(&format!("ejection: {ejection}"))
        .policy("guard: {breaker: {enabled: false}}\n")
        .start()
        .await
}

fn ejected(state: &serde_json::Value) -> usize {
    let endpoints = state["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().filter(|endpoint| endpoint["ejected"] == true).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_in_a_row_is_left_out_and_taken_back() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    bad.always("*", Reply::new(503));
    good.always("*", Reply::ok("fine"));
    let ejection = "{consecutiveFailures: 3, ejectForMs: 700}";
    let proxy = before(&[&bad, &good], ejection).await;
    eventually("it is ejected", || async {
        proxy.get("/a").await;
        (ejected(&state(&proxy).await) == 1).then_some(())
    })
    .await;
    assert_eq!(bad.all_requests().len(), 3);
    bad.always("*", Reply::ok("back"));
    eventually("it is used again", || async {
        (proxy.get("/b").await.text() == "back").then_some(())
    })
    .await;
    assert_eq!(ejected(&state(&proxy).await), 0);
    let log = proxy.log();
    assert!(log.contains("endpoint ejection changed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_endpoint_is_never_left_out() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let proxy = before(&[&origin], "{consecutiveFailures: 1, ejectForMs: 60000}").await;
    for _ in 0..5 {
        proxy.get("/a").await.assert_status(503);
    }
    assert_eq!(origin.hits("/a"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_share_is_left_out() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    for origin in &origins {
        origin.always("*", Script::new().reset());
    }
    let all: Vec<&Origin> = origins.iter().collect();
    let proxy = before(&all, "{consecutiveFailures: 2, ejectForMs: 60000}").await;
    for _ in 0..20 {
        proxy.get("/a").await.assert_status(502);
    }
    assert_eq!(ejected(&state(&proxy).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_usable_endpoints_all_are_used() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    bad.always("*", Reply::new(503));
    good.always("*", Reply::ok("fine"));
    let ejection = "{consecutiveFailures: 2, ejectForMs: 60000, panicPercent: 60%}";
    let proxy = before(&[&bad, &good], ejection).await;
    for _ in 0..20 {
        proxy.get("/a").await;
    }
    assert!(bad.all_requests().len() > 5, "half of the endpoints is less than 60 %");
}
