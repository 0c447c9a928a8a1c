//! The admin port.

use serde_json::Value;

use crate::support::{Origin, Proxy, Reply, Setup};

async fn busy() -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=600", "hello"));
    origin.always("/no", Reply::cached("no-store", "x"));
    let policy = "routes:\n  - name: the-route\n    match: {path: {prefix: /}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    for path in ["/a", "/a", "/a", "/no"] {
        proxy.get(path).await.assert_status(200);
    }
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_are_200_while_serving() {
    let (_origin, proxy) = busy().await;
    proxy.admin("/healthz").await.assert_status(200);
    proxy.admin("/readyz").await.assert_status(200);
    proxy.admin("/no/such/page").await.assert_status(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_well_formed_and_count_hits_by_route() {
    let (_origin, proxy) = busy().await;
    let total = async || {
        let metrics = proxy.admin("/metrics").await;
        metrics.assert_status(200);
        let text = metrics.text();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
        }
        let hits = text.lines().filter(|l| {
            l.starts_with("outrigger")
                && l.contains("the-route")
                && l.contains("hit")
                && !l.contains("_bucket")
        });
        hits.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let before = total().await;
    assert!(before >= 2.0, "{before}");
    for _ in 0..10 {
        proxy.get("/a").await.assert_hit();
    }
    let after = total().await;
    assert!(after >= before + 10.0, "{before} and then {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_and_config_dump_are_json() {
    let (_origin, proxy) = busy().await;
    for path in ["/stats", "/config_dump"] {
        let response = proxy.admin(path).await;
        response.assert_status(200);
        let json: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert!(json.as_object().is_some_and(|o| !o.is_empty()), "{path}: {json}");
    }
    assert!(proxy.admin("/config_dump").await.text().contains("the-route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_route() {
    let (_origin, proxy) = busy().await;
    let explained = proxy.admin("/explain?url=http%3A%2F%2Fshop.test%2Fa").await;
    explained.assert_status(200);
    assert!(explained.text().contains("the-route"), "{}", explained.text());
    proxy.admin("/explain").await.assert_status(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traffic_port_does_not_answer_admin_requests() {
    let (origin, proxy) = busy().await;
    origin.always("/metrics", Reply::ok("the application's own"));
    proxy.get("/metrics").await.assert_is(200, "the application's own");
    proxy.fetch("POST", "/purge", &[("Content-Length", "0")]).await;
    assert_eq!(origin.hits("/purge"), 1);
}
