//! States of an Envoy: what istiod sent it without a cache, and what it would
//! send with the objects in `istio/`.

use std::path::Path;

use crate::control_plane::{ResourceSet, read_json};
use crate::replay::captured;

use super::patches::apply;

/// A state that an Envoy can be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Without a cache.
    Plain,
    /// With the cache's clusters alone: the first half of switching on, and of off.
    Clusters,
    /// With its routes too.
    Cache,
}

/// The resources of a state.
pub fn resources(app: &str, state: State) -> ResourceSet {
    let mut json = read_json(&captured(&format!("{app}-plain.json"))).expect("a captured file");
    let side = if app == "reviews" { "inbound" } else { "outbound" };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("istio").join(format!("{side}.yaml"));
    let objects = std::fs::read_to_string(&file).expect("the objects of a side");
    match state {
        State::Plain => {}
        State::Clusters => apply(&mut json, &objects, |name| !name.ends_with("-routes")),
        State::Cache => apply(&mut json, &objects, |_| true),
    }
    ResourceSet::from_json(&json).expect("resources that Envoy knows")
}
