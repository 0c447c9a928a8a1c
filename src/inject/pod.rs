//! Injection into one pod.

use outrigger_diagnostic::Diagnostic;
use serde_json::{Map, Value, json};

use crate::annotations::{self, Requested, STATUS, UPSTREAM_PORT};
use crate::config::Options;
use crate::merge::{merge_container, name_of};
use crate::mesh::Mesh;
use crate::refuse::{self, LISTS};
use crate::{CONTAINER, LABEL, VERSION};

/// Where the ConfigMaps of a pod's annotations are mounted, and the variables that name their files.
const CONFIG: Mounted = Mounted {
    volume: "outrigger-config",
    folder: "/etc/outrigger/config",
    variable: "OUTRIGGER_CONFIG",
    file: "/etc/outrigger/config/outrigger.yaml",
};
const POLICY: Mounted = Mounted {
    volume: "outrigger-policy",
    folder: "/etc/outrigger/policy",
    variable: "OUTRIGGER_POLICY",
    file: "/etc/outrigger/policy/policy.yaml",
};

struct Mounted {
    volume: &'static str,
    folder: &'static str,
    variable: &'static str,
    file: &'static str,
}

/// The wish of a pod, by its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It asks for Outrigger (`"true"`).
    Asked,
    /// It declines Outrigger (`"false"`).
    Declined,
    /// It has no such label.
    Silent,
}

/// Reads the label of a pod.
///
/// # Errors
/// When its value is neither `"true"` nor `"false"`.
pub fn choice(pod: &Value) -> Result<Choice, Diagnostic> {
    match pod.pointer("/metadata/labels").and_then(|labels| labels.get(LABEL)) {
        None => Ok(Choice::Silent),
        Some(Value::String(text)) if text == "true" => Ok(Choice::Asked),
        Some(Value::String(text)) if text == "false" => Ok(Choice::Declined),
        Some(other) => Err(Diagnostic::new(format!("{other} is not valid"))
            .at(format!("metadata.labels[\"{LABEL}\"]"))
            .fix("write \"true\" or \"false\", in quotes")),
    }
}

/// A pod with Outrigger in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The pod with the container and its volumes.
    pub pod: Value,
    /// What has no effect, and why.
    pub warnings: Vec<String>,
}

/// Injects Outrigger into a pod, whatever its label says, except that `"false"` is refused.
///
/// # Errors
/// The first reason to refuse the pod.
pub fn inject(pod: &Value, options: &Options) -> Result<Injection, Diagnostic> {
    refuse::shape(pod)?;
    if choice(pod)? == Choice::Declined {
        return Err(Diagnostic::new("the pod declines Outrigger")
            .at(format!("metadata.labels[\"{LABEL}\"]"))
            .fix("remove the label, or write \"true\""));
    }
    let mut warnings = Vec::new();
    let requested = annotations::read(pod, options.mesh, &mut warnings)?;
    let native = requested.native.unwrap_or(options.native);
    refuse::pod(pod, native)?;
    refuse::ports(pod, options.mesh, requested.sides.unwrap_or(options.sides))?;
    let mut ours = Ours {
        container: options.template.container.clone(),
        volumes: options.template.volumes.clone(),
    };
    ours.dress(pod, options, &requested, native)?;
    for volume in &ours.volumes {
        refuse::volume(pod, volume)?;
    }
    let mut pod = pod.clone();
    ours.put_into(&mut pod, options, native);
    Ok(Injection { pod, warnings })
}

/// What is put into one pod.
struct Ours {
    container: Map<String, Value>,
    volumes: Vec<Value>,
}

impl Ours {
    /// Sets in the template what options and annotations ask for.
    fn dress(
        &mut self,
        pod: &Value,
        options: &Options,
        requested: &Requested,
        native: bool,
    ) -> Result<(), Diagnostic> {
        let image = requested.image.as_ref().unwrap_or(&options.image);
        self.container.insert("image".to_owned(), json!(image));
        match options.mesh {
            Mesh::Istio => {
                let mode = requested.sides.unwrap_or(options.sides).to_string();
                self.set_variable("OUTRIGGER_MODE", json!({"value": mode}));
            }
            Mesh::None => {
                let port = upstream_port(pod, requested)?.to_string();
                self.set_variable("OUTRIGGER_UPSTREAM_PORT", json!({"value": port}));
            }
        }
        for (place, name) in
            [(CONFIG, &requested.config_map), (POLICY, &requested.policy_config_map)]
        {
            if let Some(name) = name {
                self.mount(&place, name);
            }
        }
        if let Some((name, key)) = &requested.redis_secret {
            let source = json!({"secretKeyRef": {"name": name, "key": key, "optional": true}});
            self.set_variable("OUTRIGGER_REDIS", json!({"valueFrom": source}));
        }
        if let Some(memory) = &requested.memory {
            for kind in ["requests", "limits"] {
                let resources = object_in(&mut self.container, "resources");
                object_in(resources, kind).insert("memory".to_owned(), json!(memory));
            }
        }
        if native {
            self.container.insert("restartPolicy".to_owned(), json!("Always"));
        } else {
            self.container.remove("restartPolicy");
            self.container.remove("startupProbe");
        }
        Ok(())
    }

    /// Sets a variable, before all others: their values may refer to it.
    fn set_variable(&mut self, name: &str, source: Value) {
        let env = list_in(&mut self.container, "env");
        env.retain(|variable| name_of(variable) != name);
        let mut variable = source;
        if let Value::Object(variable) = &mut variable {
            variable.insert("name".to_owned(), json!(name));
        }
        env.insert(0, variable);
    }

    /// Mounts a ConfigMap. It is optional for the kubelet, so that the pod starts without it; what
    /// is missing then is in Outrigger's log.
    fn mount(&mut self, place: &Mounted, name: &str) {
        let mount = json!({"name": place.volume, "mountPath": place.folder, "readOnly": true});
        let mounts = list_in(&mut self.container, "volumeMounts");
        mounts.retain(|mount| name_of(mount) != place.volume);
        mounts.push(mount);
        self.volumes.retain(|volume| name_of(volume) != place.volume);
        let source = json!({"name": name, "optional": true});
        self.volumes.push(json!({"name": place.volume, "configMap": source}));
        self.set_variable(place.variable, json!({"value": place.file}));
    }

    fn put_into(self, pod: &mut Value, options: &Options, native: bool) {
        let Value::Object(pod) = pod else { return };
        let spec = object_in(pod, "spec");
        let list = if native { "initContainers" } else { "containers" };
        let place = refuse::place_in(spec, list);
        let mut container = take_container(spec).unwrap_or_default();
        merge_container(&mut container, &self.container);
        if !native {
            container.remove("restartPolicy");
            container.remove("startupProbe");
        }
        // It stays where it is, unless another injector has come whose containers must be first.
        let others = list_in(spec, list);
        let first = if native { native_place(others) } else { 0 };
        let place = place.map_or(if native { first } else { others.len() }, |at| at.max(first));
        others.insert(place.min(others.len()), Value::Object(container));
        let names: Vec<String> = self.volumes.iter().map(|v| name_of(v).to_owned()).collect();
        add_missing(spec, "volumes", self.volumes);
        add_missing(spec, "imagePullSecrets", options.template.pull_secrets.clone());
        let metadata = object_in(pod, "metadata");
        for (list, added) in
            [("labels", &options.template.labels), ("annotations", &options.template.annotations)]
        {
            for (key, value) in added {
                object_in(metadata, list).entry(key.as_str()).or_insert_with(|| value.clone());
            }
        }
        let status = json!({"version": VERSION, "container": CONTAINER, "volumes": names});
        object_in(metadata, "annotations").insert(STATUS.to_owned(), json!(status.to_string()));
    }
}

fn upstream_port(pod: &Value, requested: &Requested) -> Result<u16, Diagnostic> {
    let port = requested.upstream_port.or_else(|| refuse::only_port(pod)).ok_or_else(|| {
        Diagnostic::new(
            "it is missing, and the pod's containers do not declare exactly one containerPort",
        )
        .at(annotations::path(UPSTREAM_PORT))
        .fix("write the port of the application, such as \"8080\"")
    })?;
    if [15480, 15490, 15491].contains(&port) {
        return Err(Diagnostic::new(format!("Outrigger listens on port {port} itself"))
            .at(annotations::path(UPSTREAM_PORT))
            .fix("write the port of the application"));
    }
    Ok(port)
}

/// Takes our container out of a pod; a list that is empty then goes as well.
fn take_container(spec: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    let mut found = None;
    for list in LISTS {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        let before = containers.len();
        containers.retain_mut(|item| {
            if name_of(item) != CONTAINER {
                return true;
            }
            if let Value::Object(container) = item {
                found.get_or_insert_with(|| std::mem::take(container));
            }
            false
        });
        if containers.is_empty() && before > 0 {
            spec.remove(list);
        }
    }
    found
}

/// The place of a native sidecar among the init containers: after Istio's, so that it starts when
/// the network is there and stops before it goes; otherwise before all but the containers that set
/// up the network.
fn native_place(others: &[Value]) -> usize {
    if let Some(proxy) = others.iter().position(|other| name_of(other) == "istio-proxy") {
        return proxy + 1;
    }
    let network = ["istio-init", "istio-validation"];
    others.iter().position(|other| !network.contains(&name_of(other))).unwrap_or(others.len())
}

fn add_missing(spec: &mut Map<String, Value>, list: &str, ours: Vec<Value>) {
    if ours.is_empty() {
        return;
    }
    let there = list_in(spec, list);
    for item in ours {
        if !there.iter().any(|found| name_of(found) == name_of(&item)) {
            there.push(item);
        }
    }
}

/// The mapping under a key, made if it is not there.
fn object_in<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(inner) => inner,
        _ => unreachable!("it was made a mapping just now"),
    }
}

/// The list under a key, made if it is not there.
fn list_in<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let slot = map.entry(key).or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("it was made a list just now"),
    }
}
