//! States of an Envoy: what istiod sent it without a cache, and what it would
//! send with the objects that `outrigger istio render` prints.

use crate::support::outrigger;

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
    /// With it by a Sidecar resource, for the callee.
    Sidecar,
}

/// The resources of a state.
pub fn resources(app: &str, state: State) -> ResourceSet {
    let mut json = read_json(&captured(&format!("{app}-plain.json"))).expect("a captured file");
    let side = if app == "reviews" { "inbound" } else { "outbound" };
    let objects = rendered(side, &["--hang-after", "2"]);
    match state {
        State::Plain => {}
        State::Clusters => apply(&mut json, &objects, |name| !name.ends_with("-routes")),
        State::Sidecar => {
            apply(&mut json, &rendered(side, &["--variant", "sidecar"]), |_| true);
        }
        State::Cache => apply(&mut json, &objects, |_| true),
    }
    ResourceSet::from_json(&json).expect("resources that Envoy knows")
}

/// The objects of a side for the two workloads of the captured answers.
fn rendered(side: &str, more: &[&str]) -> String {
    let workload = match side {
        "inbound" => "--name reviews --namespace bookinfo --selector app=reviews --port 8080",
        _ => {
            "--name frontend --namespace shop --selector app=frontend --port 9080 \
             --host reviews.bookinfo.svc.cluster.local"
        }
    };
    render(&format!("--mode {side} {workload} {}", more.join(" ")))
}

/// What `outrigger istio render` prints for these arguments.
pub fn render(args: &str) -> String {
    let mut command = outrigger();
    let output = command.args(["istio", "render"]).args(args.split_whitespace()).output();
    let output = output.expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("YAML")
}
