//! `values.yaml` and its schema: both tell of every value, and what is wrong is refused by name.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::helm::{documents, repository, template};

fn schema() -> Value {
    let text = fs::read(repository("charts/outrigger/values.schema.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A part of the schema with what it refers to.
fn resolved(schema: &Value, part: &Value) -> Value {
    let Some(name) = part["$ref"].as_str() else { return part.clone() };
    let mut found = schema["$defs"][name.strip_prefix("#/$defs/").unwrap()].clone();
    assert!(found.is_object(), "{name}");
    if part["description"].is_string() {
        found["description"] = part["description"].clone();
    }
    found
}

/// Paths of all values that the schema names, each checked: described, typed, bounded, closed.
fn described(schema: &Value, part: &Value, path: &str, all: &mut BTreeSet<String>) {
    let part = resolved(schema, part);
    assert!(part["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path}: {part}");
    let kind = &part["type"];
    assert!(kind.is_string() || kind.is_array(), "{path} has no type");
    all.insert(path.to_owned());
    if kind == "string" {
        let bound =
            ["enum", "pattern", "maxLength", "minLength"].iter().any(|k| !part[*k].is_null());
        let free =
            ["sidecar.env[].value", "webhook.tolerations[].key", "webhook.tolerations[].value"];
        assert!(bound || free.contains(&path), "{path} takes any text");
    }
    if kind == "integer" && !path.ends_with("tolerationSeconds") {
        assert!(part["minimum"].is_number() && part["maximum"].is_number(), "{path} has no bounds");
    }
    if let Some(properties) = part["properties"].as_object() {
        assert_eq!(part["additionalProperties"], false, "{path} takes any name");
        for (name, inner) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            described(schema, inner, &format!("{path}{dot}{name}"), all);
        }
    }
    if part["items"].is_object() {
        described(schema, &part["items"], &format!("{path}[]"), all);
    }
}

fn paths(values: &Value, path: &str, all: &mut BTreeSet<String>) {
    all.insert(path.to_owned());
    // What Kubernetes owns is not described value by value.
    let foreign = path.ends_with(".requests") || path.ends_with(".limits");
    for (name, inner) in values.as_object().into_iter().flatten().filter(|_| !foreign) {
        let dot = if path.is_empty() { "" } else { "." };
        paths(inner, &format!("{path}{dot}{name}"), all);
    }
}

#[test]
fn values_and_schema_tell_of_the_same() {
    let schema = schema();
    let mut described_paths = BTreeSet::new();
    described(&schema, &schema, "", &mut described_paths);
    let text = fs::read_to_string(repository("charts/outrigger/values.yaml")).unwrap();
    let [values] = documents(&text).try_into().unwrap();
    let mut given = BTreeSet::new();
    paths(&values, "", &mut given);
    described_paths.retain(|path| !path.contains("[]") && path != "global");
    assert_eq!(given, described_paths);
    assert!(given.len() > 80, "{}", given.len());
}

#[test]
fn every_value_has_a_comment() {
    let text = fs::read_to_string(repository("charts/outrigger/values.yaml")).unwrap();
    let mut before = "";
    for line in text.lines() {
        let key = line.trim_start().split(':').next().unwrap();
        let commented = before.trim_start().starts_with('#');
        // These four are Kubernetes' own, under a comment that speaks of them.
        let foreign = ["requests", "limits", "cpu", "memory"].contains(&key);
        let is_key = line.contains(':') && !line.trim_start().starts_with('#');
        assert!(!is_key || commented || foreign, "no comment before: {line}");
        assert!(line.len() <= 120, "{line}");
        before = line;
    }
}

/// What Helm says to values that are wrong.
fn refused(values: &Value) -> String {
    let said = template(values);
    assert!(!said.ok, "{values} is taken");
    said.err
}

#[test]
fn wrong_values_are_refused_by_name() {
    let deploy = json!({"enabled": true});
    let secret = json!({"name": "redis"});
    for (values, named) in [
        (json!({"mesh": "linkerd"}), "at '/mesh'"),
        (json!({"mode": "both"}), "at '/mode'"),
        (json!({"webhok": {}}), "'webhok' not allowed"),
        (json!({"webhook": {"enable": true}}), "'enable' not allowed"),
        (json!({"webhook": {"replicas": 0}}), "at '/webhook/replicas'"),
        (json!({"webhook": {"timeoutSeconds": 31}}), "at '/webhook/timeoutSeconds'"),
        (json!({"webhook": {"failurePolicy": "ignore"}}), "at '/webhook/failurePolicy'"),
        (json!({"webhook": {"podDisruptionBudget": {"maxUnavailable": 0}}}), "/maxUnavailable'"),
        (json!({"webhook": {"excludedNamespaces": ["A"]}}), "at '/webhook/excludedNamespaces/0'"),
        (
            json!({"webhook": {"tolerations": [{"operator": "In"}]}}),
            "/webhook/tolerations/0/operator'",
        ),
        (json!({"prometheus": true}), "at '/prometheus'"),
        (json!({"podMonitor": {"interval": "30"}}), "at '/podMonitor/interval'"),
        (json!({"image": {"tag": "a b"}}), "at '/image/tag'"),
        (json!({"image": {"repository": "outrigger:1"}}), "at '/image/repository'"),
        (json!({"image": {"digest": "sha256:12"}}), "at '/image/digest'"),
        (json!({"sidecar": {"resources": {"limits": {"memory": "256MB"}}}}), "/limits/memory'"),
        (
            json!({"sidecar": {"probes": {"startup": {"periodSeconds": 0}}}}),
            "/startup/periodSeconds'",
        ),
        (json!({"sidecar": {"env": [{"name": "A-B", "value": ""}]}}), "at '/sidecar/env/0/name'"),
        (
            json!({"istio": {"discoveryAddress": "grpcs://istiod:15012"}}),
            "at '/istio/discoveryAddress'",
        ),
        (json!({"istio": {"namespace": ""}}), "at '/istio/namespace'"),
        (json!({"redis": {"url": "redis://user:password@redis:6379"}}), "at '/redis/url'"),
        (json!({"redis": {"url": "redis:6379"}}), "at '/redis/url'"),
        (json!({"redis": {"deploy": {"maxmemory": "192Mi"}}}), "at '/redis/deploy/maxmemory'"),
        (
            json!({"redis": {"url": "redis://r", "existingSecret": secret}}),
            "at '/redis/existingSecret/name'",
        ),
        (json!({"redis": {"url": "redis://r", "deploy": deploy}}), "at '/redis/deploy/enabled'"),
        (
            json!({"redis": {"existingSecret": secret, "deploy": deploy}}),
            "at '/redis/deploy/enabled'",
        ),
        (json!({"fullnameOverride": "Cache"}), "at '/fullnameOverride'"),
        (json!({"commonLabels": {"a b": "c"}}), "at '/commonLabels': additional properties 'a b'"),
    ] {
        let error = refused(&values);
        assert!(error.contains(named), "{values}: {named} is not named: {error}");
    }
}

#[test]
fn long_names_are_cut_where_kubernetes_would_refuse_them() {
    let long = "a-release-name-that-is-as-long-as-helm-takes-it-12345";
    let chart = crate::helm::chart();
    let values = json!({"webhook": {"enabled": true}, "redis": {"deploy": {"enabled": true}}});
    let said = crate::helm::helm(&["template", long, &chart, "-f", "-"], &values);
    assert!(said.ok, "{}", said.err);
    for object in documents(&said.out) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63 && !name.contains("--"), "{name}");
    }
}
