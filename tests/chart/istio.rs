//! The objects of `istio/`, by the schemas of Istio and Kubernetes.

use serde_json::Value;

use crate::helm::{documents, repository};
use crate::judge::{RELEASES, all_valid};

#[test]
fn every_object_is_valid() {
    let mut objects: Vec<Value> = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(repository("istio")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            files += 1;
            objects.extend(documents(&std::fs::read_to_string(path).unwrap()));
        }
    }
    assert_eq!(files, 10);
    let judged = all_valid(&objects, &RELEASES);
    assert_eq!(judged, objects.len(), "each is another");
}
