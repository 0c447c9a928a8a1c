//! EnvoyFilters on captured resources: the patches of `istio/*.yaml`, put where
//! istiod puts them.

use serde::Deserialize as _;
use serde_json::Value;

/// Applies the objects of a YAML text whose names `wanted` accepts, to
/// `{cds, lds, rds, eds}`.
pub fn apply(resources: &mut Value, objects: &str, wanted: impl Fn(&str) -> bool) {
    for document in serde_yaml::Deserializer::from_str(objects) {
        let object = Value::deserialize(document).expect("YAML");
        let name = object["metadata"]["name"].as_str().expect("an object with a name");
        assert_eq!(object["kind"], "EnvoyFilter", "{name}");
        if !wanted(name) {
            continue;
        }
        for patch in object["spec"]["configPatches"].as_array().expect("patches") {
            apply_one(resources, patch);
        }
    }
}

fn apply_one(resources: &mut Value, patch: &Value) {
    let to = patch["applyTo"].as_str().expect("applyTo");
    let operation = patch["patch"]["operation"].as_str().expect("an operation");
    let value = &patch["patch"]["value"];
    let route = &patch["match"]["routeConfiguration"];
    match (to, operation) {
        ("CLUSTER", "ADD") => {
            let mut cluster = value.clone();
            cluster["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
            resources["cds"].as_array_mut().expect("clusters").push(cluster);
        }
        ("HTTP_ROUTE", "INSERT_FIRST") => {
            each_host(resources, route, &mut |host| {
                host["routes"].as_array_mut().expect("routes").insert(0, value.clone());
            });
        }
        ("VIRTUAL_HOST", "MERGE") => {
            each_host(resources, route, &mut |host| merge(host, value));
        }
        _ => panic!("{operation} of {to} is not among what these tests can patch"),
    }
}

/// Calls back with every virtual host that a match names; there has to be one.
fn each_host(resources: &mut Value, route: &Value, change: &mut dyn FnMut(&mut Value)) {
    let mut found = 0;
    configurations(resources, &mut |configuration| {
        if configuration["name"] != route["name"] {
            return;
        }
        for host in configuration["virtual_hosts"].as_array_mut().expect("virtual hosts") {
            if route["vhost"].is_null() || route["vhost"]["name"] == host["name"] {
                change(host);
                found += 1;
            }
        }
    });
    assert!(found > 0, "no virtual host for {route}");
}

/// Calls back with every route configuration, inline in a listener or by itself.
fn configurations(json: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    match json {
        Value::Object(fields) if fields.contains_key("virtual_hosts") => change(json),
        Value::Object(fields) => fields.values_mut().for_each(|v| configurations(v, change)),
        Value::Array(items) => items.iter_mut().for_each(|v| configurations(v, change)),
        _ => {}
    }
}

/// As protobuf merges: lists grow, messages are merged, the rest is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}
