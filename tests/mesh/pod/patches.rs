//! EnvoyFilters and Sidecars on captured resources: patches put where istiod puts
//! them.

use serde::Deserialize as _;
use serde_json::{Value, json};

/// Applies the objects of a YAML text whose names `wanted` accepts, to
/// `{cds, lds, rds, eds}`.
pub fn apply(resources: &mut Value, objects: &str, wanted: impl Fn(&str) -> bool) {
    for document in serde_yaml::Deserializer::from_str(objects) {
        let object = Value::deserialize(document).expect("YAML");
        let name = object["metadata"]["name"].as_str().expect("an object with a name");
        if object["kind"] == "Sidecar" {
            apply_sidecar(resources, &object);
            continue;
        }
        assert_eq!(object["kind"], "EnvoyFilter", "{name}");
        if !wanted(name) {
            continue;
        }
        for patch in object["spec"]["configPatches"].as_array().expect("patches") {
            apply_one(resources, patch);
        }
    }
}

/// What a Sidecar resource changes: the inbound cluster of a port, which then leads to a fixed
/// address instead of the original destination.
fn apply_sidecar(resources: &mut Value, sidecar: &Value) {
    for ingress in sidecar["spec"]["ingress"].as_array().expect("ingress") {
        let port = &ingress["port"]["number"];
        let endpoint = ingress["defaultEndpoint"].as_str().expect("an endpoint");
        let (address, to) = endpoint.split_once(':').expect("an address and a port");
        let to: u16 = to.parse().expect("a port");
        let name = format!("inbound|{port}||");
        let cluster = cluster(resources, &name.clone().into());
        let fields = cluster.as_object_mut().expect("a cluster");
        for field in ["cleanup_interval", "lb_policy", "upstream_bind_config"] {
            fields.remove(field);
        }
        let socket = json!({"socket_address": {"address": address, "port_value": to}});
        cluster["type"] = "STATIC".into();
        cluster["load_assignment"] = json!({
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}],
        });
    }
}

fn cluster<'a>(resources: &'a mut Value, name: &Value) -> &'a mut Value {
    let clusters = resources["cds"].as_array_mut().expect("clusters");
    let found = clusters.iter_mut().find(|cluster| cluster["name"] == *name);
    found.unwrap_or_else(|| panic!("no cluster {name}"))
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
        ("CLUSTER", "MERGE") => {
            merge(cluster(resources, &patch["match"]["cluster"]["name"]), value);
        }
        ("HTTP_ROUTE", "MERGE") => {
            let name = &route["vhost"]["route"]["name"];
            each_host(resources, route, &mut |host| {
                let routes = host["routes"].as_array_mut().expect("routes").iter_mut();
                routes.filter(|r| r["name"] == *name).for_each(|r| merge(r, value));
            });
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
            let name = &route["vhost"]["name"];
            if name.is_null() || *name == host["name"] {
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
