//! Objects before the schemas of Kubernetes and of the Prometheus operator.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use outrigger_test_support::installed;
use serde_json::{Value, json};

use crate::helm::repository;

/// The oldest release that the chart takes, and the newest that there are schemas of.
pub const RELEASES: [&str; 2] = ["1.25", "1.37"];
/// The oldest release with native sidecars.
pub const NATIVE_RELEASES: [&str; 2] = ["1.29", "1.37"];

/// Fails unless all objects are valid in all these releases of Kubernetes. One process for all.
pub fn all_valid<'a>(objects: impl IntoIterator<Item = &'a Value>, releases: &[&str]) -> usize {
    let distinct: BTreeSet<String> = objects.into_iter().map(Value::to_string).collect();
    let parsed = distinct.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let is_custom = |object: &Value| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        version.starts_with("monitoring.coreos.com/") || version.contains(".istio.io/")
    };
    let (custom, kubernetes_own): (Vec<Value>, Vec<Value>) = parsed.partition(is_custom);
    let cases: Vec<Value> = kubernetes_own
        .iter()
        .flat_map(|object| releases.iter().map(move |release| json!([release, object])))
        .collect();
    let mut wrong = Vec::new();
    if !cases.is_empty() {
        wrong.extend(kubernetes(&cases));
    }
    if !custom.is_empty() {
        wrong.extend(custom_resources(&custom));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    distinct.len()
}

fn kubernetes(cases: &[Value]) -> Vec<String> {
    let script = repository("tests/chart/judge.py");
    run(Command::new(installed("venv/bin/python")).arg(script), &json!(cases))
}

fn custom_resources(objects: &[Value]) -> Vec<String> {
    let models = installed("models");
    assert!(models.join("node_modules").exists(), "no packages: run `tests/setup test`");
    let script = repository("tests/chart/judge.mjs");
    run(Command::new("node").arg(script).arg(models), &json!(objects))
}

fn run(command: &mut Command, input: &Value) -> Vec<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}: run `tests/setup test`"));
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} fails");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_judges_find_what_is_wrong() {
    let object = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
    let cases = [
        json!(["1.25", object(json!({"ports": [{"port": 1}]}))]),
        json!(["1.25", object(json!({"ports": [{"port": "one"}]}))]),
        json!(["1.37", object(json!({"unknown": true}))]),
        json!(["1.25", {"apiVersion": "v1", "kind": "Nothing", "metadata": {"name": "a"}}]),
    ];
    let wrong = kubernetes(&cases);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[1].contains("unknown"), "{wrong:?}");

    let monitor = |interval: &str| {
        let endpoint = json!({"port": "a", "interval": interval});
        let spec = json!({"selector": {}, "podMetricsEndpoints": [endpoint]});
        json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
               "metadata": {"name": "a"}, "spec": spec})
    };
    let filter = |operation: &str| {
        let patch = json!({"applyTo": "CLUSTER", "patch": {"operation": operation}});
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
               "metadata": {"name": "a"}, "spec": {"configPatches": [patch]}})
    };
    let all = [monitor("30s"), monitor("30"), filter("ADD"), filter("PUT")];
    let wrong = custom_resources(&all);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}
