//! Pods that Outrigger cannot be put into: it could not work there, or would do harm.

use outrigger_diagnostic::Diagnostic;
use serde_json::{Map, Value};

use crate::annotations::STATUS;
use crate::merge::{name_of, protocol, says_all_of};
use crate::mesh::Mesh;
use crate::sides::Sides;
use crate::{CONTAINER, USER};

/// Where the admin port and the metrics are.
const ADMIN_PORTS: [u16; 2] = [15490, 15491];
const INBOUND_PORT: u16 = 15480;
const OUTBOUND_PORT: u16 = 15481;

/// The two lists of containers, with their names in a pod.
pub(crate) const LISTS: [&str; 2] = ["initContainers", "containers"];

/// The elements of a list of the pod's spec.
pub(crate) fn items<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    let found = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// The place of our container in a list of a pod's spec.
pub(crate) fn place_in(spec: &Map<String, Value>, list: &str) -> Option<usize> {
    let containers = spec.get(list).and_then(Value::as_array)?;
    containers.iter().position(|found| name_of(found) == CONTAINER)
}

/// Refuses what cannot be walked.
pub(crate) fn shape(pod: &Value) -> Result<(), Diagnostic> {
    let wrong = |path: &str, kind: &str| {
        Err(Diagnostic::new(format!("not a {kind}"))
            .at(path)
            .fix("write a pod as Kubernetes takes it"))
    };
    if !pod.is_object() {
        return wrong("pod", "mapping");
    }
    for path in ["spec", "metadata", "metadata.labels", "metadata.annotations"] {
        let found = pod.pointer(&format!("/{}", path.replace('.', "/")));
        if !found.is_none_or(|value| value.is_object() || value.is_null()) {
            return wrong(path, "mapping");
        }
    }
    for list in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        let found = pod.get("spec").and_then(|spec| spec.get(list));
        match found {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                if let Some(i) = items.iter().position(|item| !item.is_object()) {
                    return wrong(&format!("spec.{list}[{i}]"), "mapping");
                }
            }
            Some(_) => return wrong(&format!("spec.{list}"), "list"),
        }
    }
    if items(pod, "containers").is_empty() {
        return Err(Diagnostic::new("there is none")
            .at("spec.containers")
            .fix("a pod needs a container"));
    }
    Ok(())
}

/// Refuses pods in which the container could not work.
pub(crate) fn pod(pod: &Value, native: bool) -> Result<(), Diagnostic> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(Diagnostic::new(
            "pods of the host's network share its loopback ports, where Outrigger listens",
        )
        .at("spec.hostNetwork")
        .fix("leave this pod out, or take it off the host's network"));
    }
    if spec.pointer("/os/name").and_then(Value::as_str) == Some("windows") {
        return Err(Diagnostic::new("Outrigger has no image for Windows")
            .at("spec.os.name")
            .fix("leave this pod out"));
    }
    let restarts = spec.get("restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    if !native && restarts != "Always" {
        return Err(Diagnostic::new(format!(
            "{restarts}: such a pod ends with its last container, and Outrigger never ends"
        ))
        .at("spec.restartPolicy")
        .fix(
            "ask for a native sidecar: annotation outrigger.io/native-sidecar: \"true\" \
             (Kubernetes 1.29 and later)",
        ));
    }
    not_ours(pod)?;
    user(pod)
}

/// A container with our name that no injection has put there.
fn not_ours(pod: &Value) -> Result<(), Diagnostic> {
    let status = pod.pointer("/metadata/annotations").and_then(|all| all.get(STATUS));
    if status.is_some() {
        return Ok(());
    }
    for list in LISTS {
        if let Some(i) = items(pod, list).iter().position(|found| name_of(found) == CONTAINER) {
            return Err(Diagnostic::new(format!(
                "a container named {CONTAINER} is there already, and not from an injection"
            ))
            .at(format!("spec.{list}[{i}].name"))
            .fix("give it another name, or leave this pod out"));
        }
    }
    Ok(())
}

/// Another container that runs as our user.
fn user(pod: &Value) -> Result<(), Diagnostic> {
    let own = Value::from(USER);
    let of_pod = pod.pointer("/spec/securityContext/runAsUser");
    for list in LISTS {
        for (i, container) in items(pod, list).iter().enumerate() {
            if name_of(container) == CONTAINER {
                continue;
            }
            let of_container = container.pointer("/securityContext/runAsUser");
            let path = match (of_container, of_pod) {
                (Some(user), _) if *user == own => {
                    format!("spec.{list}[{i}].securityContext.runAsUser")
                }
                (None, Some(user)) if *user == own => "spec.securityContext.runAsUser".to_owned(),
                _ => continue,
            };
            return Err(Diagnostic::new(format!(
                    "container \"{}\" runs as user {USER}, Outrigger's own: rules for traffic and files \
                     could not tell them apart",
                    name_of(container)
                )).at(path).fix("choose another user"));
        }
    }
    Ok(())
}

/// A container that says it listens where Outrigger does.
pub(crate) fn ports(pod: &Value, mesh: Mesh, sides: Sides) -> Result<(), Diagnostic> {
    let mut ours = ADMIN_PORTS.to_vec();
    if mesh == Mesh::None || sides.inbound {
        ours.push(INBOUND_PORT);
    }
    if mesh == Mesh::Istio && sides.outbound {
        ours.push(OUTBOUND_PORT);
    }
    for list in LISTS {
        for (i, container) in items(pod, list).iter().enumerate() {
            if name_of(container) == CONTAINER {
                continue;
            }
            let declared = container.get("ports").and_then(Value::as_array);
            for (j, port) in declared.into_iter().flatten().enumerate() {
                let number = port.get("containerPort").and_then(Value::as_u64);
                let taken = number.filter(|n| ours.iter().any(|own| u64::from(*own) == *n));
                if let (Some(number), "TCP") = (taken, protocol(port)) {
                    return Err(Diagnostic::new(format!(
                        "Outrigger listens on port {number} itself"
                    ))
                    .at(format!("spec.{list}[{i}].ports[{j}].containerPort"))
                    .fix("move the application to another port"));
                }
            }
        }
    }
    Ok(())
}

/// A volume with the name of one of ours, and another source.
pub(crate) fn volume(pod: &Value, ours: &Value) -> Result<(), Diagnostic> {
    let name = name_of(ours);
    let found = items(pod, "volumes").iter().enumerate().find(|(_, found)| name_of(found) == name);
    match found {
        Some((i, found)) if !says_all_of(found, ours) => Err(Diagnostic::new(format!(
            "a volume \"{name}\" is there already, with another source than Outrigger's"
        ))
        .at(format!("spec.volumes[{i}]"))
        .fix("give it another name")),
        _ => Ok(()),
    }
}

/// The port that the only container that declares one declares.
pub(crate) fn only_port(pod: &Value) -> Option<u16> {
    let mut ports: Vec<u64> = items(pod, "containers")
        .iter()
        .filter(|container| name_of(container) != CONTAINER)
        .filter_map(|container| container.get("ports").and_then(Value::as_array))
        .flatten()
        .filter(|port| protocol(port) == "TCP")
        .filter_map(|port| port.get("containerPort").and_then(Value::as_u64))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    match ports[..] {
        [port] => u16::try_from(port).ok().filter(|port| *port > 0),
        _ => None,
    }
}
