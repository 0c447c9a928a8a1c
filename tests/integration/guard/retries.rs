//! Sending a failed request again.

use super::{guarded, metric};
use crate::support::{Origin, Reply, Script, Setup};

const ONCE: &str = "{retries: {budget: 100%, max: 1, backoff: 1ms}, breaker: {enabled: false}}";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_is_sent_again() {
    let origin = Origin::start().await;
    origin.on("/503", |r| if r.nth == 1 { Reply::new(503) } else { Reply::ok("fine") });
    origin.on("/reset", |r| match r.nth {
        1 => Script::new().reset(),
        _ => Reply::ok("fine").into(),
    });
    let proxy = guarded(&origin, ONCE).await;
    proxy.get("/503").await.assert_is(200, "fine");
    proxy.get("/reset").await.assert_is(200, "fine");
    assert_eq!((origin.hits("/503"), origin.hits("/reset")), (2, 2));
    assert_eq!(metric(&proxy, "outrigger_retries_total{result=\"made\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_before_its_body_is_sent_again() {
    let origin = Origin::start().await;
    for (path, control) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        let lines = format!("Cache-Control: {control}\r\nContent-Length: 4\r\n\r\n");
        origin.on(path, move |r| {
            let whole = format!("HTTP/1.1 200 OK\r\n{lines}");
            let script = Script::new().send(whole);
            if r.nth == 1 { script.reset() } else { script.send("fine") }
        });
    }
    let proxy = guarded(&origin, ONCE).await;
    for path in ["/stored", "/passed"] {
        proxy.get(path).await.assert_is(200, "fine");
        assert_eq!(origin.hits(path), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_a_body_of_undeclared_length_is_sent_once() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::new(503).body(&r.body));
    let proxy = guarded(&origin, ONCE).await;
    let mut client = proxy.connect().await;
    let lines = "Host: shop.test\r\nTransfer-Encoding: chunked";
    client.send(format!("GET /a HTTP/1.1\r\n{lines}\r\n\r\n2\r\nxy\r\n0\r\n\r\n")).await;
    client.response("GET").await.assert_is(503, "xy");
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_sent_again() {
    let origin = Origin::start().await;
    origin.always("/503", Reply::new(503));
    let proxy = crate::support::Proxy::start(&origin).await;
    proxy.get("/503").await.assert_status(503);
    assert_eq!(origin.hits("/503"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_is_passed_on_when_attempts_are_used_up() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::new(503).body(r.nth.to_string()));
    let proxy = guarded(&origin, ONCE).await;
    proxy.get("/a").await.assert_is(503, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_idempotent_or_has_a_body_is_sent_once() {
    let origin = Origin::start().await;
    origin.always("/p", Reply::new(503));
    let proxy = guarded(&origin, ONCE).await;
    for (method, length) in [("POST", "0"), ("PATCH", "0"), ("PUT", "2")] {
        let before = origin.hits("/p");
        let mut client = proxy.connect().await;
        let body = if length == "2" { "xy" } else { "" };
        let head = format!("{method} /p HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}");
        client.send(format!("{head}\r\n\r\n{body}")).await;
        client.response(method).await.assert_status(503);
        assert_eq!(origin.hits("/p"), before + 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_stay_within_their_budget() {
    let origin = Origin::start().await;
    origin.always("/fine", Reply::ok("fine"));
    origin.always("*", Reply::new(503));
    let guard = "{retries: {budget: 10%, backoff: 1ms}, breaker: {enabled: false}}";
    let proxy = guarded(&origin, guard).await;
    for n in 0..30 {
        proxy.get(&format!("/{n}")).await.assert_status(503);
        proxy.get("/fine").await.assert_status(200);
    }
    // A tenth of the 59 that there were at the last failure; the three that are always allowed do
    // not add to it.
    assert_eq!(origin.all_requests().len(), 65);
    let refused = metric(&proxy, "outrigger_retries_total{result=\"budget-used-up\"}").await;
    assert_eq!(refused, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_made_worse_by_retries() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let guard = "{retries: {budget: 100%, backoff: 1ms}, breaker: {enabled: false}}";
    let proxy = guarded(&origin, guard).await;
    for n in 0..50 {
        proxy.get(&format!("/{n}")).await.assert_status(503);
    }
    // Two failures for each of the first requests, until it is clear that all fail.
    assert_eq!(origin.all_requests().len(), 52);
    assert!(metric(&proxy, "outrigger_retries_total{result=\"all-fail\"}").await > 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_ends_retries() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503).body("theirs"));
    let guard = "{retries: {budget: 100%, max: 9, backoff: 1ms}, \
                 breaker: {minRequests: 4, openFor: 30s}}";
    let proxy = guarded(&origin, guard).await;
    proxy.get("/a").await.assert_is(503, "theirs");
    assert_eq!(origin.hits("/a"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_within_the_deadline() {
    let origin = Origin::start().await;
    origin.on("/soon", |r| match r.nth {
        1 => Reply::new(503).header("Retry-After", "1"),
        _ => Reply::ok("fine"),
    });
    origin.always("/late", Reply::new(503).header("Retry-After", "60"));
    let guard = "{timeout: 10s, retries: {budget: 100%, backoff: 1ms}, breaker: {enabled: false}}";
    let proxy = guarded(&origin, guard).await;
    let began = std::time::Instant::now();
    proxy.get("/soon").await.assert_is(200, "fine");
    assert!(began.elapsed() >= std::time::Duration::from_millis(950), "it came back too soon");
    proxy.get("/late").await.assert_status(503);
    assert_eq!(origin.hits("/late"), 1);
    assert_eq!(metric(&proxy, "outrigger_retries_total{result=\"deadline\"}").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_to_another_endpoint() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    bad.always("*", Reply::new(503));
    good.always("*", Reply::ok("fine"));
    let endpoints = format!("endpoints: [\"{}\", \"{}\"]", bad.addr, good.addr);
    let proxy = Setup::upstream("http://shop.test")
        .upstream_line(&endpoints)
        .policy(&format!("guard: {ONCE}\n"))
        .start()
        .await;
    for n in 0..8 {
        proxy.get(&format!("/{n}")).await.assert_is(200, "fine");
    }
}
