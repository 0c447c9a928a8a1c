//! What holds for every pod and every container of ours: the "restricted" profile of Pod Security, and what
//! the API server or the kubelet would find only at run time.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// A small pod that a sidecar is put into.
pub fn application() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "catalog", "labels": {"app": "catalog"}},
        "spec": {"containers": [{"name": "catalog", "image": "catalog:1"}]},
    })
}

/// Merges a partial pod into a pod as both injectors do: lists of named things are appended.
pub fn merge(pod: &mut Value, partial: &Value) {
    for list in ["containers", "initContainers", "volumes"] {
        let Some(added) = partial["spec"][list].as_array() else { continue };
        let there = pod["spec"].as_object_mut().unwrap().entry(list).or_insert_with(|| json!([]));
        there.as_array_mut().unwrap().extend(added.iter().cloned());
    }
    for kind in ["labels", "annotations"] {
        let Some(added) = partial["metadata"][kind].as_object() else { continue };
        let there =
            pod["metadata"].as_object_mut().unwrap().entry(kind).or_insert_with(|| json!({}));
        there.as_object_mut().unwrap().extend(added.clone());
    }
}

/// All containers of a pod.
pub fn containers(spec: &Value) -> Vec<&Value> {
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| spec[*list].as_array())
        .flatten()
        .collect()
}

/// The container of this name.
pub fn container<'a>(spec: &'a Value, name: &str) -> &'a Value {
    containers(spec).into_iter().find(|one| one["name"] == name).expect(name)
}

/// The environment variable of this name.
pub fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    container["env"].as_array()?.iter().find(|one| one["name"] == name)
}

/// Checks a pod; `ours` are the containers that the chart answers for.
pub fn check(spec: &Value, ours: &[&str]) {
    let volumes: Vec<&str> = names(&spec["volumes"]);
    distinct(&volumes, "volumes");
    distinct(
        &containers(spec).iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(),
        "containers",
    );
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(spec[field].is_null(), "{field}");
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let allowed = ["configMap", "downwardAPI", "emptyDir", "projected", "secret"];
        let kinds: Vec<&String> =
            volume.as_object().unwrap().keys().filter(|k| *k != "name").collect();
        assert_eq!(kinds.len(), 1, "{volume}");
        assert!(allowed.contains(&kinds[0].as_str()), "{volume}");
    }
    for name in ours {
        let container = container(spec, name);
        restricted(container);
        ports(container);
        environment(container);
        let mounts = container["volumeMounts"].as_array().unwrap();
        for mount in mounts {
            assert!(volumes.contains(&mount["name"].as_str().unwrap()), "no volume for {mount}");
        }
        distinct(
            &mounts.iter().map(|m| m["mountPath"].as_str().unwrap()).collect::<Vec<_>>(),
            "paths",
        );
        let memory = |kind: &str| bytes(container["resources"][kind]["memory"].as_str().unwrap());
        assert!(memory("requests") <= memory("limits"), "{}", container["resources"]);
    }
}

fn restricted(container: &Value) {
    let security = &container["securityContext"];
    assert_eq!(security["runAsNonRoot"], true, "{security}");
    assert_eq!(security["allowPrivilegeEscalation"], false, "{security}");
    assert_eq!(security["readOnlyRootFilesystem"], true, "{security}");
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{security}");
    assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}), "{security}");
    for field in ["runAsUser", "runAsGroup"] {
        let id = security[field].as_u64().unwrap();
        assert!(id != 0 && id != 1337, "{field}: {id} is root's or Envoy's");
    }
    assert!(security["privileged"].is_null() && security["procMount"].is_null(), "{security}");
}

fn ports(container: &Value) {
    let ports: Vec<&Value> = container["ports"].as_array().into_iter().flatten().collect();
    for port in &ports {
        let name = port["name"].as_str().unwrap();
        assert!((1..=15).contains(&name.len()), "{name} has more than 15 characters");
        assert!(port["hostPort"].is_null(), "{port}");
    }
    distinct(&ports.iter().map(|p| p["name"].as_str().unwrap()).collect::<Vec<_>>(), "ports");
}

/// A variable is there once, and `$(NAME)` speaks only of those before it.
fn environment(container: &Value) {
    let env: Vec<&Value> = container["env"].as_array().into_iter().flatten().collect();
    let names: Vec<&str> = env.iter().map(|one| one["name"].as_str().unwrap()).collect();
    distinct(&names, "variables");
    for (place, one) in env.iter().enumerate() {
        let value = one["value"].as_str().unwrap_or_default();
        for part in value.split("$(").skip(1) {
            let name = part.split(')').next().unwrap();
            assert!(names[..place].contains(&name), "{value}: {name} does not come before it");
        }
    }
    for text in container["args"].as_array().into_iter().flatten() {
        for part in text.as_str().unwrap().split("$(").skip(1) {
            assert!(names.contains(&part.split(')').next().unwrap()), "{text}");
        }
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|one| one["name"].as_str().unwrap()).collect()
}

fn distinct(names: &[&str], what: &str) {
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{what}: {names:?}");
}

fn bytes(quantity: &str) -> u64 {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let found = units.iter().find_map(|(unit, shift)| Some((quantity.strip_suffix(unit)?, shift)));
    let (number, shift) = found.expect(quantity);
    number.parse::<u64>().unwrap() << shift
}
