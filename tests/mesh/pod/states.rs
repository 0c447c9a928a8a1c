//! States of an Envoy: what istiod sent, and what it would send with another
//! EnvoyFilter.

use serde_json::{Value, json};

use crate::control_plane::{ResourceSet, read_json};
use crate::replay::captured;

/// A state that an Envoy can be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Without a cache.
    Plain,
    /// With clusters and routes of the cache.
    Cache,
    /// With its clusters alone: the first half of switching on, and of off.
    Clusters,
}

/// The resources of a state.
pub fn resources(app: &str, state: State) -> ResourceSet {
    let side = if app == "reviews" { "inbound" } else { "outbound" };
    let file = if state == State::Plain { "plain" } else { side };
    let mut json = read_json(&captured(&format!("{app}-{file}.json"))).expect("a captured file");
    for cluster in items(&mut json, "/cds") {
        check_readiness(cluster);
    }
    each_list_of_routes(&mut json, &mut |routes| match state {
        State::Plain => {}
        State::Clusters => routes.retain(|route| !is_ours(route)),
        State::Cache => bound_hangs(routes),
    });
    ResourceSet::from_json(&json).expect("resources that Envoy knows")
}

/// What Outrigger takes for Envoy's check of a listener, and for nothing else.
fn check_readiness(cluster: &mut Value) {
    for check in items(cluster, "/health_checks") {
        check["http_health_check"] = json!({"host": "outrigger.internal", "path": "/readyz"});
    }
}

/// A list in JSON; none if it is not there. (Indexing would create it.)
fn items<'a>(json: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    json.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn is_ours(route: &Value) -> bool {
    route["name"].as_str().is_some_and(|name| name.starts_with("outrigger"))
}

/// The captured routes wait for a cache that hangs for as long as it does. What
/// may be sent twice is sent to the app after two seconds of silence: a route of
/// its own before the other, for GET and HEAD.
fn bound_hangs(routes: &mut Vec<Value>) {
    let Some(at) = routes.iter().position(is_ours) else { return };
    let mut safe = routes[at].clone();
    safe["name"] = "outrigger-safe".into();
    let method = json!({"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}});
    safe["match"]["headers"].as_array_mut().expect("a list of matchers").push(method);
    let retry = &mut safe["route"]["retry_policy"];
    retry["retry_on"] = "connect-failure,refused-stream,reset-before-request,reset".into();
    retry["per_try_idle_timeout"] = "2s".into();
    routes.insert(at, safe);
}

/// Calls back with the routes of every virtual host, inline or by name.
fn each_list_of_routes(json: &mut Value, change: &mut dyn FnMut(&mut Vec<Value>)) {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Array(routes) if key == "routes" => change(routes),
                    other => each_list_of_routes(other, change),
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| each_list_of_routes(item, change));
        }
        _ => {}
    }
}
