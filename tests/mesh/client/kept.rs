//! The last good policy is on disk, for a start without the control plane.

use super::{Pod, lifetime, node, object, origin, setup};
use crate::control_plane::ControlPlane;
use crate::control_plane::proto::ECDS;
use crate::support::Setup;

async fn started(setup: Setup, name: &str, labels: tempfile::NamedTempFile) -> Pod {
    Pod { proxy: setup.start().await, node: node(name), _labels: labels }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_istiod_uses_the_last_good_policy() {
    let (origin, mut plane) = (origin().await, ControlPlane::start().await);
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    let state = tempfile::tempdir().unwrap();
    let url = plane.url();
    let with_state = |labels: &tempfile::NamedTempFile| {
        let dir = state.path().display().to_string();
        setup(&origin, &url, "reviews-1", labels.path()).flag("--state-dir", &dir)
    };
    let labels = super::labels();
    let first = started(with_state(&labels), "reviews-1", labels).await;
    first.until("the policy", |p| p["sources"] == serde_json::json!(["outrigger/workload"])).await;
    let version = first.policy().await["version"].clone();
    // What is refused is not what is kept.
    plane
        .apply(&object("workload", "cache", &lifetime("all", "60s")).replace("60s", "60"))
        .unwrap();
    plane.until("a refusal", &first.node, |c| c.watch(ECDS).nacks == 1).await;
    drop(first);
    plane.stop().await;

    let labels = super::labels();
    let second = started(with_state(&labels), "reviews-1", labels).await;
    let policy = second.policy().await;
    assert_eq!(policy["version"], version, "in force before the first request: {policy:#}");
    assert!(policy["istiod"]["fromDiskSavedUnixSeconds"].is_u64(), "{policy:#}");
    assert_eq!(second.metric("outrigger_xds_policy_from_disk").await, 1.0);
    second.proxy.get("/a").await.assert_status(200);
    second.proxy.get("/a").await.assert_status(200).assert_hit();

    plane.delete("bookinfo", "cache");
    plane.start_again().await;
    let from_istiod = |policy: &serde_json::Value| {
        policy["sources"] == serde_json::json!([])
            && policy["istiod"]["fromDiskSavedUnixSeconds"].is_null()
    };
    second.until("istiod decides again", from_istiod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_on_disk_is_said_and_left_alone() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("policy.json"), "{\"format\":").unwrap();
    let labels = super::labels();
    let dir = state.path().display().to_string();
    let setup = setup(&origin, &plane.url(), "reviews-1", labels.path()).flag("--state-dir", &dir);
    let pod = started(setup, "reviews-1", labels).await;
    pod.proxy.get("/a").await.assert_status(200);
    assert!(pod.proxy.log().contains("the kept policy cannot be used"), "{}", pod.proxy.log());
    plane.until("it follows istiod", &pod.node, |c| c.watch(ECDS).acks > 0).await;
}
