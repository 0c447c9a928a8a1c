//! The state-of-the-world protocol as istiod speaks it.

use serde_json::json;

use crate::ads::{Ads, NAMES, delta, first, node, node_id, policy_object, routes};
use crate::control_plane::ControlPlane;
use crate::control_plane::proto::{DeltaDiscoveryRequest, DiscoveryRequest, ECDS};

fn pair(name: &str, route: &str) -> (String, String) {
    (name.to_owned(), route.to_owned())
}

#[tokio::test]
async fn none_is_an_answer() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let response = ads.take().await;
    assert!(response.resources.is_empty());
    assert_eq!(response.type_url, ECDS);
    let connection =
        plane.until("the answer is taken", &node_id("bookinfo"), |c| c.watch(ECDS).acks == 1).await;
    assert_eq!(connection.watch(ECDS).version_acked, response.version_info);
    assert_eq!(connection.node.labels["app"], "reviews");
}

#[tokio::test]
async fn a_name_that_is_added_later_is_answered_alone() {
    let plane = ControlPlane::start().await;
    plane.apply(&policy_object("istio-system", "a", "outrigger/mesh", "a", &json!({}))).unwrap();
    plane.apply(&policy_object("bookinfo", "b", "outrigger/namespace", "b", &json!({}))).unwrap();
    let mut ads = Ads::with(&plane, first(node("bookinfo"), &NAMES[..1])).await.unwrap();
    let one = ads.next().await;
    assert_eq!(routes(&one), [pair("outrigger/mesh", "a")]);
    ads.ack_names(&one, &NAMES);
    let added = ads.next().await;
    assert_eq!(routes(&added), [pair("outrigger/namespace", "b")], "only what is new");
    ads.ack(&added);
    plane.push();
    assert_eq!(ads.next().await.resources.len(), 2, "a push is complete again");
}

#[tokio::test]
async fn fewer_names_and_taken_responses_are_not_answered() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let response = ads.take().await;
    ads.ack_names(&response, &NAMES[..2]);
    plane.until("fewer names", &node_id("bookinfo"), |c| c.watch(ECDS).names.len() == 2).await;
    plane.push();
    let pushed = ads.next().await;
    assert_ne!(pushed.version_info, response.version_info, "nothing came before the push");
}

#[tokio::test]
async fn no_names_end_the_subscription() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let response = ads.take().await;
    ads.ack_names(&response, &[]);
    plane.until("it is gone", &node_id("bookinfo"), |c| !c.watches.contains_key(ECDS)).await;
    plane.push();
    // Asking again is a subscription like the first one, whatever its nonce.
    ads.ack(&response);
    let again = ads.next().await;
    assert_eq!(again.version_info, plane.version());
    let connection = plane.connection(&node_id("bookinfo")).unwrap();
    assert_eq!(connection.watch(ECDS).responses, 1, "the push was not sent");
}

#[tokio::test]
async fn a_stale_nonce_is_passed_over() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let old = ads.take().await;
    plane.until("the first is taken", &node_id("bookinfo"), |c| c.watch(ECDS).acks == 1).await;
    plane.push();
    let new = ads.next().await;
    ads.ack_names(&old, &["outrigger/mesh", "other"]);
    ads.ack(&new);
    let connection = plane
        .until("the new one is taken", &node_id("bookinfo"), |c| c.watch(ECDS).acks == 2)
        .await;
    assert_eq!(connection.watch(ECDS).names, NAMES, "the names of the stale one count for nothing");
    assert_eq!(connection.watch(ECDS).version_acked, new.version_info);
}

#[tokio::test]
async fn a_refused_response_is_noted_and_not_repeated() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let good = ads.take().await;
    plane.apply(&policy_object("bookinfo", "b", "outrigger/namespace", "b", &json!({}))).unwrap();
    let bad = ads.next().await;
    ads.nack(&bad, &good.version_info, "routes[0].cache: unknown field");
    let node = node_id("bookinfo");
    let connection = plane.until("it is refused", &node, |c| c.watch(ECDS).nacks == 1).await;
    let watch = connection.watch(ECDS);
    assert_eq!(watch.last_error, "routes[0].cache: unknown field");
    assert_eq!(watch.version_acked, good.version_info);
    assert_eq!(plane.rejects(ECDS), 1);
    plane.push();
    let again = ads.take().await;
    // A stream keeps its order: had it come again by itself, that would be the next one.
    assert_eq!(again.version_info, plane.version());
    assert_eq!(again.resources, bad.resources);
    plane.until("it is taken", &node, |c| c.watch(ECDS).last_error.is_empty()).await;
}

#[tokio::test]
async fn a_new_stream_with_an_old_version_is_answered() {
    let plane = ControlPlane::start().await;
    plane.apply(&policy_object("bookinfo", "b", "outrigger/namespace", "b", &json!({}))).unwrap();
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let before = ads.take().await;
    drop(ads);
    let mut again = first(node("bookinfo"), &NAMES);
    again.version_info = before.version_info.clone();
    let mut ads = Ads::with(&plane, again).await.unwrap();
    assert_eq!(ads.next().await.resources, before.resources);
    assert_eq!(plane.connections().len(), 2);
}

#[tokio::test]
async fn a_type_without_a_generator_is_not_answered() {
    let plane = ControlPlane::start().await;
    let mut ads = Ads::open(&plane, "bookinfo").await;
    ads.take().await;
    ads.send(DiscoveryRequest {
        type_url: "type.googleapis.com/istio.networking.nds.v1.NameTable".to_owned(),
        resource_names: vec!["a".to_owned()],
        ..DiscoveryRequest::default()
    });
    plane.push();
    assert_eq!(ads.next().await.type_url, ECDS);
}

#[tokio::test]
async fn over_delta_a_removal_is_never_named() {
    let plane = ControlPlane::start().await;
    plane.apply(&policy_object("bookinfo", "b", "outrigger/namespace", "b", &json!({}))).unwrap();
    let request = DeltaDiscoveryRequest {
        node: Some(node("bookinfo")),
        type_url: ECDS.to_owned(),
        resource_names_subscribe: NAMES.map(str::to_owned).to_vec(),
        ..DeltaDiscoveryRequest::default()
    };
    let (_requests, mut responses) = delta(&plane, request).await;
    let one = responses.message().await.unwrap().unwrap();
    assert_eq!(one.resources[0].name, "outrigger/namespace");
    assert!(plane.delete("bookinfo", "b"));
    let none = responses.message().await.unwrap().unwrap();
    assert!(none.resources.is_empty());
    assert!(none.removed_resources.is_empty(), "istiod does not name it either");
}
