//! Which EnvoyFilter objects a client gets, in which order, and when.

use serde_json::json;

use crate::ads::{Ads, NAMES, first, node, node_id, node_with, policy_object, routes};
use crate::control_plane::ControlPlane;

fn pair(name: &str, route: &str) -> (String, String) {
    (name.to_owned(), route.to_owned())
}

const MESH: &str = "outrigger/mesh";

#[tokio::test]
async fn labels_and_namespace_select() {
    let plane = ControlPlane::start().await;
    let selector = |app: &str| json!({"workloadSelector": {"labels": {"app": app}}});
    for object in [
        policy_object("istio-system", "root", MESH, "of the mesh", &json!({})),
        policy_object("bookinfo", "ns", NAMES[1], "of the namespace", &json!({})),
        policy_object("shop", "ns", NAMES[1], "of another namespace", &json!({})),
        policy_object("bookinfo", "mine", NAMES[2], "of the workload", &selector("reviews")),
        policy_object("bookinfo", "other", NAMES[2], "of another workload", &selector("ratings")),
        policy_object("bookinfo", "odd", "somebody/else", "not asked for", &json!({})),
    ] {
        plane.apply(&object).unwrap();
    }
    let mut ads = Ads::open(&plane, "bookinfo").await;
    assert_eq!(
        routes(&ads.next().await),
        [
            pair(MESH, "of the mesh"),
            pair(NAMES[1], "of the namespace"),
            pair(NAMES[2], "of the workload"),
        ]
    );
}

#[tokio::test]
async fn one_name_in_several_objects_comes_in_istiods_order() {
    let plane = ControlPlane::start().await;
    for (namespace, name, priority) in [
        ("bookinfo", "second", 0),
        ("bookinfo", "late", 10),
        ("bookinfo", "third", 0),
        ("istio-system", "first", 0),
        ("bookinfo", "early", -1),
    ] {
        let more = json!({"priority": priority});
        plane.apply(&policy_object(namespace, name, MESH, name, &more)).unwrap();
    }
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let names: Vec<_> = routes(&ads.next().await).into_iter().map(|(_, route)| route).collect();
    assert_eq!(names, ["early", "first", "second", "third", "late"]);
}

#[tokio::test]
async fn versions_and_metadata_of_the_proxy_decide_too() {
    let plane = ControlPlane::start().await;
    let object = |name: &str, proxy: serde_json::Value| {
        let text = policy_object("bookinfo", name, MESH, name, &json!({}));
        let mut object: serde_json::Value = serde_json::from_str(&text).unwrap();
        object["spec"]["configPatches"][0]["match"]["proxy"] = proxy;
        plane.apply(&object.to_string()).unwrap();
    };
    object("this version", json!({"proxyVersion": r"^1\.29.*"}));
    object("another version", json!({"proxyVersion": r"^1\.2[0-8].*"}));
    object("this tier", json!({"metadata": {"TIER": "front"}}));
    object("another tier", json!({"metadata": {"TIER": "back"}}));
    let id = node_id("bookinfo");
    let of = |metadata: &[(&str, &str)]| first(node_with(&id, &[], metadata), &NAMES);
    let named = |route: &str| pair(MESH, route);
    let mut ads = Ads::with(&plane, of(&[("ISTIO_VERSION", "1.29.6"), ("TIER", "front")])).await;
    let response = ads.as_mut().unwrap().next().await;
    assert_eq!(routes(&response), [named("this version"), named("this tier")]);
    let mut ads = Ads::with(&plane, of(&[])).await.unwrap();
    assert!(ads.next().await.resources.is_empty(), "no version matches no pattern");
}

#[tokio::test]
async fn every_change_is_pushed_to_all_it_may_concern() {
    let plane = ControlPlane::start().await;
    plane.apply(&policy_object("bookinfo", "mine", MESH, "mine", &json!({}))).unwrap();
    let mut ads = Ads::open(&plane, "bookinfo").await;
    let mut elsewhere = Ads::open(&plane, "shop").await;
    let (before, shop) = (ads.take().await, elsewhere.take().await);
    let selector = json!({"workloadSelector": {"labels": {"app": "ratings"}}});
    plane.apply(&policy_object("bookinfo", "other", MESH, "other", &selector)).unwrap();
    let pushed = ads.take().await;
    assert_eq!(pushed.resources, before.resources, "the same content");
    assert_ne!(pushed.version_info, before.version_info, "under a new version");
    plane.apply(&policy_object("istio-system", "all", MESH, "all", &json!({}))).unwrap();
    assert_eq!(routes(&ads.take().await).len(), 2);
    let next = elsewhere.next().await;
    assert_eq!(routes(&next), [pair(MESH, "all")]);
    assert_ne!(next.version_info, shop.version_info);
    let connection = plane.connection(&node_id("shop")).unwrap();
    assert_eq!(
        connection.watch(&next.type_url).responses,
        2,
        "the change in bookinfo passed it by"
    );
}

#[tokio::test]
async fn what_is_deleted_is_missing_from_the_next_response() {
    let plane = ControlPlane::start().await;
    plane.apply(&policy_object("bookinfo", "one", MESH, "one", &json!({}))).unwrap();
    plane.apply(&policy_object("bookinfo", "two", NAMES[1], "two", &json!({}))).unwrap();
    let mut ads = Ads::open(&plane, "bookinfo").await;
    assert_eq!(ads.take().await.resources.len(), 2);
    assert!(plane.delete("bookinfo", "one"));
    assert_eq!(routes(&ads.take().await), [pair(NAMES[1], "two")]);
    assert!(plane.delete("bookinfo", "two"));
    assert!(ads.take().await.resources.is_empty());
    assert!(!plane.delete("bookinfo", "two"), "it is gone");
}

#[tokio::test]
async fn an_edit_keeps_the_place_of_an_object() {
    let plane = ControlPlane::start().await;
    for route in ["one", "two"] {
        plane.apply(&policy_object("bookinfo", route, MESH, route, &json!({}))).unwrap();
    }
    plane.apply(&policy_object("bookinfo", "one", MESH, "edited", &json!({}))).unwrap();
    let mut ads = Ads::open(&plane, "bookinfo").await;
    assert_eq!(routes(&ads.next().await), [pair(MESH, "edited"), pair(MESH, "two")]);
}

#[tokio::test]
async fn one_bad_object_refuses_them_all() {
    let plane = ControlPlane::start().await;
    let version = plane.version();
    let good = policy_object("bookinfo", "good", MESH, "good", &json!({}));
    let bad = policy_object("bookinfo", "bad", MESH, "bad", &json!({}))
        .replace("udpa.type.v1.TypedStruct", "outrigger.v1.Policy");
    let error = plane.apply(&format!("{good}\n---\n{bad}\n")).unwrap_err();
    assert!(error.contains("bookinfo/bad") && error.contains("outrigger.v1.Policy"), "{error}");
    assert_eq!(plane.version(), version, "nothing is pushed");
    let mut ads = Ads::open(&plane, "bookinfo").await;
    assert!(ads.take().await.resources.is_empty());
    plane.apply(&format!("{good}\n---\n{}\n", good.replace("\"good\"", "\"too\""))).unwrap();
    assert_eq!(ads.next().await.resources.len(), 2, "and one push for all of them");
}

#[tokio::test]
async fn other_operations_are_not_served() {
    let plane = ControlPlane::start().await;
    let object = policy_object("bookinfo", "merge", MESH, "merge", &json!({}));
    plane.apply(&object.replace("\"ADD\"", "\"MERGE\"")).unwrap();
    let mut ads = Ads::with(&plane, first(node("bookinfo"), &NAMES)).await.unwrap();
    assert!(ads.next().await.resources.is_empty());
}
