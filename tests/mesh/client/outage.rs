//! The control plane restarts, is silent, is gone, says goodbye: traffic never notices.

use super::{Load, lifetime, object, origin, pod, setup};
use crate::control_plane::proto::ECDS;
use crate::control_plane::{ControlPlane, Options};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_gone_is_found_again() {
    let (origin, mut plane) = (origin().await, ControlPlane::start().await);
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    pod.proxy.get("/a").await.assert_is(200, "1");
    let load = Load::on(&[&pod.proxy]);
    let version = pod.policy().await["version"].clone();

    plane.stop().await;
    let lost = pod.until("it notices", |p| p["istiod"]["connected"] == false).await;
    assert!(!lost["istiod"]["lastFailure"]["reason"].is_null(), "{lost:#}");
    assert_eq!(pod.metric("outrigger_xds_connected").await, 0.0);
    pod.until("it has tried in vain", |p| p["istiod"]["failures"].as_u64() > Some(1)).await;
    assert_eq!(pod.policy().await["version"], version, "the policy stays");
    pod.proxy.get("/a").await.assert_is(200, "1").assert_hit();
    assert_eq!(pod.proxy.is_ready().await, Some(true));

    // What changes in the meantime is there when it is back.
    plane.apply(&object("workload", "cache", &lifetime("all", "90s"))).unwrap();
    plane.start_again().await;
    pod.until("the new policy", |p| p["version"] != version && p["istiod"]["connected"] == true)
        .await;
    assert!(load.end().await > 20);
    let warnings = pod.proxy.log().matches("istiod cannot be reached").count();
    assert_eq!(warnings, 1, "one line for the outage: {}", pod.proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_ordinary() {
    let origin = origin().await;
    let plane = Options::default().start().await;
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    let pod = pod(&origin, &plane, "reviews-1").await;
    let load = Load::on(&[&pod.proxy]);
    let before = plane.connection(&pod.node).expect("a stream").id;
    plane.goaway();
    let after =
        plane.until("another stream", &pod.node, |c| c.id > before && c.watch(ECDS).acks > 0).await;
    assert_eq!(after.watch(ECDS).nacks, 0);
    assert!(load.end().await > 0);
    let log = pod.proxy.log();
    assert!(!log.contains("cannot be reached"), "{log}");
    let sources = pod.policy().await["sources"].clone();
    assert_eq!(sources, serde_json::json!(["outrigger/workload"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_costs_a_start_nothing() {
    let (origin, plane) = (origin().await, ControlPlane::start().await);
    plane.silence(true);
    let labels = super::labels();
    let proxy = setup(&origin, &plane.url(), "reviews-1", labels.path()).start().await;
    proxy.get("/a").await.assert_is(200, "1");
    assert_eq!(proxy.is_ready().await, Some(true), "ready without istiod");
    plane.apply(&object("workload", "cache", &lifetime("all", "60s"))).unwrap();
    plane.silence(false);
    eventually("the policy arrives after all", || async {
        proxy.get("/a").await.cache().has("hit").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_not_ready_is_asked_again() {
    let origin = origin().await;
    let plane = Options::default().not_ready().start().await;
    let labels = super::labels();
    let proxy = setup(&origin, &plane.url(), "reviews-1", labels.path()).start().await;
    eventually("it was refused more than once", || async {
        (plane.streams_refused() > 1).then_some(())
    })
    .await;
    proxy.get("/a").await.assert_status(200);
    plane.ready(true);
    let node = super::node("reviews-1");
    plane.until("an acknowledgement", &node, |c| c.watch(ECDS).acks > 0).await;
}
