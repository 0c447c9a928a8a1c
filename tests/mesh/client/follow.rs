//! Policy arrives, changes, is refused, and goes away.

use std::time::{Duration, Instant};

use super::{Load, lifetime, object, origin, pod};
use crate::control_plane::ControlPlane;
use crate::control_plane::proto::ECDS;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reaches_three_pods_under_load_within_two_seconds() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    let pods = [
        pod(&origin, &plane, "reviews-1").await,
        pod(&origin, &plane, "reviews-2").await,
        pod(&origin, &plane, "reviews-3").await,
    ];
    let load = Load::on(&[&pods[0].proxy, &pods[1].proxy, &pods[2].proxy]);
    load.goes_on(100).await;
    for pod in &pods {
        pod.proxy.get("/a").await.assert_status(200);
        assert!(!pod.proxy.get("/a").await.cache().has("hit"), "nothing is cached yet");
    }
    let since = Instant::now();
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    for pod in &pods {
        loop {
            if pod.proxy.get("/a").await.cache().has("hit") {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(2), "not within two seconds");
        }
    }
    assert!(plane.delete("bookinfo", "cache"));
    let since = Instant::now();
    for pod in &pods {
        while pod.policy().await["sources"] != serde_json::json!([]) {
            assert!(since.elapsed() < Duration::from_secs(2), "not within two seconds");
        }
    }
    load.goes_on(100).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_namespace_and_workload_are_folded_in_this_order() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    // In another order, to show that theirs counts.
    plane.apply(&object("workload", "own", &lifetime("b", "3s"))).unwrap();
    plane.apply(&object("mesh", "all", "routes: [{name: a}, {name: b}, {name: c}]")).unwrap();
    plane
        .apply(&object("namespace", "team", "routes: [{name: c, cache: {enabled: false}}]"))
        .unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    let policy =
        pod.until("three sources", |p| p["sources"].as_array().is_some_and(|s| s.len() == 3));
    let policy = policy.await;
    let sources =
        serde_json::json!(["outrigger/mesh", "outrigger/namespace", "outrigger/workload"]);
    assert_eq!(policy["sources"], sources);
    assert_eq!(policy["routes"], serde_json::json!(["a", "b", "c", "default"]));
    assert_eq!(policy["istiod"]["connected"], true, "{policy:#}");
    assert_eq!(policy["istiod"]["version"], plane.version(), "{policy:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_policy_is_refused_with_path_and_reason_and_the_last_good_one_stays() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    pod.proxy.get("/a").await.assert_is(200, "1");
    let good = pod.policy().await["version"].clone();

    let bad = object("workload", "cache", &lifetime("all", "60s")).replace("60s", "60");
    plane.apply(&bad).unwrap();
    let stream = plane.until("a refusal", &pod.node, |c| c.watch(ECDS).nacks == 1).await;
    let watch = stream.watch(ECDS);
    let reason = "outrigger/workload: routes[0].cache.ttl.default: invalid duration";
    assert!(watch.last_error.starts_with(reason), "{}", watch.last_error);
    assert_ne!(watch.version_acked, watch.version_sent, "it still uses the one before");
    let policy = pod.policy().await;
    assert_eq!(policy["version"], good, "{policy:#}");
    assert_eq!(policy["istiod"]["lastNack"]["reason"], watch.last_error, "{policy:#}");
    assert!(pod.metric("outrigger_xds_last_nack_timestamp_seconds").await > 0.0);
    pod.proxy.get("/a").await.assert_is(200, "1").assert_hit();

    plane.apply(&object("workload", "cache", &lifetime("all", "30s"))).unwrap();
    plane.until("it is content again", &pod.node, |c| c.watch(ECDS).last_error.is_empty()).await;
    let policy = pod.policy().await;
    assert_eq!(policy["istiod"]["lastNack"], serde_json::Value::Null, "{policy:#}");
    assert_eq!(policy["refused"], serde_json::Value::Null, "{policy:#}");
    assert_eq!(plane.rejects(ECDS), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_without_news_changes_nothing() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    let before = pod.policy().await;
    for n in 2..5 {
        plane.push();
        plane.until("another answer", &pod.node, |c| c.watch(ECDS).acks == n).await;
    }
    let after = pod.policy().await;
    assert_eq!(after["sinceUnixSeconds"], before["sinceUnixSeconds"]);
    assert_eq!(after["version"], before["version"]);
    assert_eq!(after["istiod"]["version"], plane.version(), "{after:#}");
    let unchanged = "outrigger_xds_responses_total{result=\"unchanged\"}";
    assert_eq!(pod.metric(unchanged).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_objects_with_one_name_the_last_counts_and_it_is_said_once() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    plane.apply(&object("namespace", "first", "routes: [{name: first}]")).unwrap();
    plane.apply(&object("namespace", "second", "routes: [{name: second}]")).unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    assert_eq!(pod.policy().await["routes"], serde_json::json!(["second", "default"]));
    plane.push();
    plane.until("another answer", &pod.node, |c| c.watch(ECDS).acks == 2).await;
    assert_eq!(pod.proxy.log().matches("came twice").count(), 1, "{}", pod.proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_it_is_and_asks_for_a_fixed_set_of_names() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    let pod = pod(&origin, &plane, "reviews-1").await;
    let stream = plane.connection(&pod.node).expect("an open stream");
    let names = ["outrigger/mesh", "outrigger/namespace", "outrigger/workload"];
    assert_eq!(stream.watch(ECDS).names, names);
    assert_eq!(stream.watches.len(), 1, "{stream:#?}");
    assert_eq!(
        stream.node.id,
        "sidecar~127.0.0.6~reviews-1-outrigger.bookinfo~bookinfo.svc.cluster.local"
    );
    let said = format!("{:?}", stream.node);
    for part in ["NAMESPACE", "CLUSTER_ID", "PROXY_CONFIG", "545db77b95"] {
        assert!(said.contains(part), "{said}");
    }
}
