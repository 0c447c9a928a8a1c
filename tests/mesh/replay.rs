//! What a real istiod sent, against what the control plane of the tests sends.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::ads::{Ads, node_with, policies, policy_object};
use crate::control_plane::proto::{CDS, DiscoveryRequest, DiscoveryResponse, EDS, LDS, RDS};
use crate::control_plane::{ControlPlane, ResourceSet, read_json};

/// A captured file.
pub fn captured(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/captured").join(name)
}

/// What changed before each response of the captured stream.
const SESSION: [Change; 9] = [
    Change::Add("istio-system", "mesh", "outrigger/mesh"),
    Change::Add("istio-system", "second", "outrigger/mesh"),
    Change::Add("bookinfo", "namespace", "outrigger/namespace"),
    Change::Add("bookinfo", "workload", "outrigger/workload"),
    Change::Add("bookinfo", "duplicate", "outrigger/workload"),
    Change::Foreign,
    Change::Delete(&[("bookinfo", "duplicate"), ("bookinfo", "foreign")]),
    Change::Delete(&[("bookinfo", "workload"), ("bookinfo", "namespace")]),
    Change::Delete(&[("istio-system", "second")]),
];

#[derive(Clone, Copy)]
enum Change {
    /// An object with what is new in the captured response.
    Add(&'static str, &'static str, &'static str),
    /// An object whose selector matches somebody else.
    Foreign,
    Delete(&'static [(&'static str, &'static str)]),
}

impl Change {
    fn apply(self, plane: &ControlPlane, expected: &Value) {
        match self {
            Self::Add(namespace, name, resource) => {
                let resources = expected["resources"].as_array().unwrap();
                let of_name = resources.iter().rfind(|r| r["name"] == resource).unwrap();
                let text = policy_object(namespace, name, resource, "x", &json!({}));
                let mut object: Value = serde_json::from_str(&text).unwrap();
                let value = &mut object["spec"]["configPatches"][0]["patch"]["value"];
                value["typed_config"] = of_name["typed_config"].clone();
                plane.apply(&object.to_string()).unwrap();
            }
            Self::Foreign => {
                let more = json!({"workloadSelector": {"labels": {"app": "ratings"}}});
                let object = policy_object("bookinfo", "foreign", "outrigger/mesh", "x", &more);
                plane.apply(&object).unwrap();
            }
            Self::Delete(objects) => {
                for (namespace, name) in objects {
                    assert!(plane.delete(namespace, name), "{namespace}/{name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_session_of_policy_changes_goes_as_with_istiod() {
    let session = read_json(&captured("ecds-session.json")).unwrap();
    let session = session.as_array().unwrap();
    assert_eq!(session.len(), SESSION.len() + 1, "the last line is the end of the stream");
    let plane = ControlPlane::start().await;
    let mut ads: Option<Ads> = None;
    let mut version = String::new();
    for (line, change) in session.iter().zip(SESSION) {
        let expected = &line["response"];
        change.apply(&plane, expected);
        let response = match &mut ads {
            Some(ads) => latest(ads, &plane).await,
            None => ads.insert(Ads::open(&plane, "bookinfo").await).take().await,
        };
        let at = &line["at_s"];
        assert_eq!(policies(&response.resources), policies_of(expected), "at {at} s");
        assert_ne!(response.version_info, version, "at {at} s");
        version = response.version_info;
    }
}

/// The response of the last push: two deletions are two pushes here, while
/// istiod gathers what changes within a moment.
async fn latest(ads: &mut Ads, plane: &ControlPlane) -> DiscoveryResponse {
    loop {
        let response = ads.take().await;
        if response.version_info == plane.version() {
            return response;
        }
    }
}

fn policies_of(response: &Value) -> Vec<(String, Value)> {
    let resources = response["resources"].as_array().unwrap().iter();
    let pair =
        |r: &Value| (r["name"].as_str().unwrap().to_owned(), r["typed_config"]["value"].clone());
    resources.map(pair).collect()
}

fn wanted(type_url: &str, names: &[&str]) -> DiscoveryRequest {
    let id = "sidecar~10.77.0.3~reviews-1.bookinfo~bookinfo.svc.cluster.local";
    DiscoveryRequest {
        node: Some(node_with(id, &[], &[])),
        type_url: type_url.to_owned(),
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test]
async fn an_envoy_gets_its_resources_clusters_first() {
    let plane = ControlPlane::start().await;
    for file in ["frontend-plain", "frontend-outbound", "reviews-plain", "reviews-inbound"] {
        let set = ResourceSet::read(&captured(&format!("{file}.json"))).unwrap();
        assert!(set.of(LDS).unwrap().len() >= 3, "{file}");
    }
    let plain = ResourceSet::read(&captured("reviews-plain.json")).unwrap();
    let inbound = ResourceSet::read(&captured("reviews-inbound.json")).unwrap();
    plane.serve("sidecar~10.77.0.3~", plain);
    let mut ads = Ads::with(&plane, wanted(CDS, &[])).await.unwrap();
    assert_eq!(ads.next().await.resources.len(), 5);
    let endpoints = "outbound|9080||reviews.bookinfo.svc.cluster.local";
    for (type_url, names) in [(LDS, &[][..]), (RDS, &["9080"]), (EDS, &[endpoints])] {
        ads.send(wanted(type_url, names));
        let response = ads.next().await;
        assert_eq!(response.type_url, type_url);
        assert!(!response.resources.is_empty(), "{type_url}");
    }
    plane.serve("sidecar~10.77.0.3~", inbound);
    let mut order = Vec::new();
    for _ in 0..4 {
        let response = ads.next().await;
        assert!(response.type_url != CDS || response.resources.len() == 6, "with the cache");
        order.push(response.type_url);
    }
    assert_eq!(order, [CDS, EDS, LDS, RDS]);
}
