//! Injection into pods, case by case and by property.

mod pod;
mod property;

use serde_json::{Value, json};

use crate::{InjectionConfig, Mesh, Options, inject};

fn options(mesh: Mesh, native: bool) -> Options {
    let config = InjectionConfig { mesh, native, ..InjectionConfig::default() };
    config.options("test").unwrap()
}

/// A pod with one container, and this merged over its top level, `spec` or `metadata`.
fn pod(spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "cart", "labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "app", "image": "cart:1", "ports": [{"containerPort": 8080}]}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn annotated(key: &str, value: &str) -> Value {
    let mut pod = pod(json!({}));
    pod["metadata"]["annotations"] = json!({key: value});
    pod
}

fn injected(pod: &Value, options: &Options) -> Value {
    inject(pod, options).unwrap().pod
}

/// The injected container and where it is.
fn ours(pod: &Value) -> (&str, usize, &Value) {
    for list in ["initContainers", "containers"] {
        let items = pod["spec"][list].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(at) = items.iter().position(|item| item["name"] == "outrigger") {
            return (list, at, &items[at]);
        }
    }
    panic!("no container of ours in {pod:#}");
}

fn variable<'a>(container: &'a Value, name: &str) -> &'a Value {
    let env = container["env"].as_array().unwrap();
    env.iter().find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// What the API server fills in between two calls of a webhook.
fn with_defaults(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["imagePullPolicy"] = json!("IfNotPresent");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if container.get(probe).is_some() {
                    container[probe]["timeoutSeconds"] = json!(1);
                    container[probe]["successThreshold"] = json!(1);
                }
            }
            for port in container["ports"].as_array_mut().into_iter().flatten() {
                port["protocol"] = json!("TCP");
            }
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
                    field["apiVersion"] = json!("v1");
                }
            }
        }
    }
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        for kind in ["projected", "configMap", "downwardAPI"] {
            if volume.get(kind).is_some() {
                volume[kind]["defaultMode"] = json!(420);
            }
        }
        for item in volume
            .pointer_mut("/downwardAPI/items")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            item["fieldRef"]["apiVersion"] = json!("v1");
        }
    }
    pod["spec"]["restartPolicy"] = json!("Always");
    pod
}
