//! The circuit breaker.

use super::{breaker_state, guarded, metric, state};
use crate::support::{Gate, H2Client, Origin, Proxy, Reply, Script, Setup, eventually};

const QUICK: &str = "{breaker: {minRequests: 4, openFor: 300ms, openMax: 1s, probes: 2}}";

async fn opened(origin: &Origin, guard: &str) -> Proxy {
    let proxy = guarded(origin, guard).await;
    for n in 0..4 {
        proxy.get(&format!("/bad/{n}")).await.assert_status(503);
    }
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_answers_at_once_with_503_and_when_to_come_back() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503).body("broken"));
    let proxy = opened(&origin, "{breaker: {minRequests: 4, openFor: 30s}}").await;
    let before = origin.all_requests().len();
    for method in ["GET", "HEAD", "DELETE"] {
        let refused = proxy.fetch(method, "/other", &[]).await;
        refused.assert_status(503);
        assert_eq!(refused.cache().get("detail"), Some("breaker-open"), "{refused:#?}");
        let after: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((25..=36).contains(&after), "{after}");
    }
    assert_eq!(origin.all_requests().len(), before, "nothing reached the upstream");
    assert_eq!(state(&proxy).await["breakers"][0]["reason"], "failure-ratio");
    let log = proxy.log();
    assert_eq!(log.matches("circuit breaker changed").count(), 1, "{log}");
    let label = "{breaker=\"upstream\",to=\"open\",reason=\"failure-ratio\"}";
    assert_eq!(metric(&proxy, &format!("outrigger_breaker_transitions_total{label}")).await, 1);
    assert_eq!(metric(&proxy, "outrigger_breaker_state{breaker=\"upstream\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_serves_stale_where_it_may() {
    let origin = Origin::start().await;
    origin.always("/s", Reply::cached("max-age=0, stale-if-error=600", "old"));
    origin.always("/n", Reply::cached("max-age=0, must-revalidate", "strict"));
    origin.always("*", Reply::new(503));
    let proxy = guarded(&origin, "{breaker: {minRequests: 4, openFor: 30s}}").await;
    proxy.get("/s").await.assert_is(200, "old");
    proxy.get("/n").await.assert_is(200, "strict");
    for n in 0..4 {
        proxy.get(&format!("/bad/{n}")).await.assert_status(503);
    }
    let (s, n) = (origin.hits("/s"), origin.hits("/n"));
    let stale = proxy.get("/s").await;
    stale.assert_is(200, "old").assert_hit();
    assert_eq!(stale.cache().get("detail"), Some("stale-breaker-open"), "{stale:#?}");
    proxy.get("/n").await.assert_status(503);
    assert_eq!((origin.hits("/s"), origin.hits("/n")), (s, n));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_close_the_breaker_when_the_upstream_is_back() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let proxy = opened(&origin, QUICK).await;
    origin.always("*", Reply::ok("fine"));
    eventually("the upstream is used again", || async {
        (proxy.get("/x").await.status == 200).then_some(())
    })
    .await;
    eventually("it is closed", || async {
        proxy.get("/x").await;
        (breaker_state(&proxy).await == "closed").then_some(())
    })
    .await;
    let log = proxy.log();
    let changes =
        |to: &str| log.lines().filter(|l| l.contains("circuit breaker") && l.contains(to)).count();
    assert_eq!(changes("probes-succeeded"), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_few_probes_reach_an_upstream_that_hangs() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    // Probes have as long as it was open, so that none is given up within the test.
    let proxy = opened(&origin, "{breaker: {minRequests: 4, openFor: 2s, probes: 2}}").await;
    let gate = Gate::new();
    origin.always("*", Script::new().gate(&gate).reply(Reply::ok("late")));
    let before = origin.all_requests().len();
    let addr = proxy.addr;
    let ask = |path: String| tokio::spawn(async move { crate::support::get(addr, &path).await });
    eventually("half-open", || async {
        ask("/first".to_owned());
        (breaker_state(&proxy).await == "half-open").then_some(())
    })
    .await;
    let asking: Vec<_> = (0..10).map(|n| ask(format!("/{n}"))).collect();
    eventually("all but one are answered", || async {
        (asking.iter().filter(|task| task.is_finished()).count() >= 9).then_some(())
    })
    .await;
    assert!(origin.all_requests().len() - before <= 2, "more than the probes");
    gate.open();
    for task in asking {
        task.await.expect("an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_forces_it_and_lets_it_go() {
    let origin = Origin::start().await;
    origin.always("*", Reply::ok("fine"));
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_status(200);
    let forced = proxy.admin_post("/breaker", r#"{"name": "upstream", "state": "open"}"#).await;
    forced.assert_status(200);
    proxy.get("/a").await.assert_status(503);
    let explained = proxy.admin("/explain?url=http://shop.test/a").await.text();
    assert!(
        explained.contains("\"state\": \"open\"") && explained.contains("\"forced\""),
        "{explained}"
    );
    proxy.admin_post("/breaker", r#"{"state": "auto"}"#).await.assert_status(200);
    proxy.get("/a").await.assert_status(200);
    let wrong = proxy.admin_post("/breaker", r#"{"name": "x", "state": "open"}"#).await;
    wrong.assert_status(404);
    assert!(wrong.text().contains("there is upstream"), "{}", wrong.text());
    proxy.admin_post("/breaker", r#"{"state": "ajar"}"#).await.assert_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_breaker_that_is_closed_lets_failures_through() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let proxy = guarded(&origin, QUICK).await;
    proxy.admin_post("/breaker", r#"{"state": "closed"}"#).await.assert_status(200);
    for n in 0..9 {
        assert!(proxy.get(&format!("/{n}")).await.header("retry-after").is_none());
    }
    assert_eq!(origin.all_requests().len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_breaker_of_its_own_does_not_touch_the_others() {
    let origin = Origin::start().await;
    for n in 0..6 {
        origin.always(&format!("/own/{n}"), Reply::new(503));
    }
    origin.always("*", Reply::ok("fine"));
    let policy = "routes:\n  - name: own\n    match: {path: {prefix: /own}}\n    \
                  guard: {breaker: {minRequests: 4, openFor: 30s}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    for n in 0..4 {
        proxy.get(&format!("/own/{n}")).await.assert_status(503);
    }
    let refused = proxy.get("/own/5").await;
    assert_eq!(refused.cache().get("detail"), Some("breaker-open"));
    proxy.get("/else").await.assert_status(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_close_an_open_breaker() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let guard = "guard: {breaker: {minRequests: 4, openFor: 30s}}\n";
    let proxy = Setup::of(&origin).policy(guard).start().await;
    for n in 0..4 {
        proxy.get(&format!("/bad/{n}")).await;
    }
    assert_eq!(breaker_state(&proxy).await, "open");
    let file = proxy.policy.clone().expect("a policy file");
    std::fs::write(&file, format!("{guard}routes: [{{name: new}}]\n")).expect("written");
    eventually("the new policy", || async {
        proxy.admin("/config_dump").await.text().contains("\"new\"").then_some(())
    })
    .await;
    assert_eq!(breaker_state(&proxy).await, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_as_failure_is_policy() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(500));
    let proxy = guarded(&origin, "{breaker: {minRequests: 4, failures: [5xx]}}").await;
    for n in 0..4 {
        proxy.get(&format!("/{n}")).await.assert_status(500);
    }
    proxy.get("/after").await.assert_status(503);
    let usual = guarded(&origin, "{breaker: {minRequests: 4}}").await;
    for n in 0..9 {
        usual.get(&format!("/{n}")).await.assert_status(500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_off_open_it() {
    let origin = Origin::start().await;
    let lines = [("Content-Length", "100"), ("Cache-Control", "no-store")];
    let script = Script::new().send(crate::support::head(200, &lines)).send("some").reset();
    origin.always("*", script);
    let proxy = guarded(&origin, "{breaker: {minRequests: 4, openFor: 30s}}").await;
    eventually("bodies count", || async { (proxy.get("/b").await.status == 503).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_open_it_where_that_is_asked_for() {
    let origin = Origin::start().await;
    let slow = std::time::Duration::from_millis(60);
    origin.always("*", Script::new().sleep(slow).reply(Reply::ok("slow")));
    let guard = "{breaker: {minRequests: 4, slowRatio: 50%, slowAfter: 20ms, openFor: 30s}}";
    let proxy = guarded(&origin, guard).await;
    for n in 0..4 {
        proxy.get(&format!("/{n}")).await.assert_status(200);
    }
    proxy.get("/after").await.assert_status(503);
    assert_eq!(state(&proxy).await["breakers"][0]["reason"], "slow-ratio");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_statuses_in_trailers_count() {
    let origin = crate::support::H2Origin::start(|_| {
        let trailers = [("grpc-status", "14")];
        http::Response::new(crate::support::ChannelBody::of("frame", &trailers))
    })
    .await;
    let proxy = Setup::upstream(format!("h2c://{}", origin.addr))
        .policy("guard: {breaker: {minRequests: 4, openFor: 30s}}\n")
        .start()
        .await;
    let client = H2Client::connect(proxy.addr).await;
    eventually("calls that fail by their trailers count", || async {
        (client.get("/shop.Cart/Get").await.status() == 503).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_have_no_breaker() {
    let origin = Origin::start().await;
    origin.always("*", Reply::new(503));
    let proxy = guarded(&origin, "{breaker: {enabled: false, minRequests: 2}}").await;
    for n in 0..9 {
        proxy.get(&format!("/{n}")).await;
    }
    assert_eq!(origin.all_requests().len(), 9);
    proxy.admin_post("/breaker", r#"{"state": "open"}"#).await.assert_status(404);
}
