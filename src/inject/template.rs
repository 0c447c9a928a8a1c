//! The template: a partial pod with the container and its volumes.

use serde_json::{Map, Value};

use crate::CONTAINER;
use crate::config::Mesh;
use crate::error::ConfigError;
use crate::merge::name_of;

const ISTIO: &str = include_str!("templates/istio.yaml");
const STANDALONE: &str = include_str!("templates/standalone.yaml");

/// The part of a pod that Outrigger brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub(crate) container: Map<String, Value>,
    pub(crate) volumes: Vec<Value>,
    pub(crate) pull_secrets: Vec<Value>,
    pub(crate) labels: Map<String, Value>,
    pub(crate) annotations: Map<String, Value>,
}

impl Template {
    /// The built-in template.
    ///
    /// # Errors
    /// None in a build that has passed its tests.
    pub fn builtin(mesh: Mesh) -> Result<Self, ConfigError> {
        match mesh {
            Mesh::Istio => Self::from_yaml("the built-in template for Istio", ISTIO),
            Mesh::None => Self::from_yaml("the built-in template without a mesh", STANDALONE),
        }
    }

    /// Reads a template from YAML.
    ///
    /// # Errors
    /// When it is no partial pod with just our container.
    pub fn from_yaml(origin: &str, text: &str) -> Result<Self, ConfigError> {
        if text.contains("{{") {
            return Err(ConfigError::new(
                origin,
                "it holds {{ }}, as templates of Istio's injector do; this one is plain YAML, and \
                 what differs between pods is said by annotations",
            ));
        }
        let value: Value = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::new(origin, error.to_string()))?;
        Self::from_value(origin, value)
    }

    /// Reads a template that is parsed already.
    ///
    /// # Errors
    /// When it is no partial pod with just our container.
    pub fn from_value(origin: &str, value: Value) -> Result<Self, ConfigError> {
        let refuse = |reason: String| ConfigError::new(origin, reason);
        let mut pod = object(Some(value), "").map_err(refuse)?;
        pod.retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
        let mut metadata = object(pod.remove("metadata"), "metadata").map_err(refuse)?;
        let mut spec = object(pod.remove("spec"), "spec").map_err(refuse)?;
        let containers = list(spec.remove("containers"), "spec.containers").map_err(refuse)?;
        let template = Template {
            container: only_ours(containers).map_err(refuse)?,
            volumes: list(spec.remove("volumes"), "spec.volumes").map_err(refuse)?,
            pull_secrets: list(spec.remove("imagePullSecrets"), "spec.imagePullSecrets")
                .map_err(refuse)?,
            labels: object(metadata.remove("labels"), "metadata.labels").map_err(refuse)?,
            annotations: object(metadata.remove("annotations"), "metadata.annotations")
                .map_err(refuse)?,
        };
        for (path, rest) in [("", &pod), ("metadata.", &metadata), ("spec.", &spec)] {
            if let Some(key) = rest.keys().next() {
                return Err(refuse(format!(
                    "{path}{key}: a template cannot set this; it may hold spec.containers, \
                     spec.volumes, spec.imagePullSecrets, metadata.labels and metadata.annotations"
                )));
            }
        }
        template.check_volumes().map_err(refuse)?;
        Ok(template)
    }

    /// The image that the template names.
    pub fn image(&self) -> Option<&str> {
        self.container.get("image").and_then(Value::as_str)
    }

    /// The names have a prefix, and no volume of ours can be missing.
    fn check_volumes(&self) -> Result<(), String> {
        for (i, volume) in self.volumes.iter().enumerate() {
            let name = name_of(volume);
            if !name.starts_with("outrigger-") {
                return Err(format!(
                    "spec.volumes[{i}].name: \"{name}\" could be a volume of the pod; begin it \
                     with outrigger-"
                ));
            }
        }
        Ok(())
    }
}

fn only_ours(containers: Vec<Value>) -> Result<Map<String, Value>, String> {
    let count = containers.len();
    match <[Value; 1]>::try_from(containers) {
        Ok([Value::Object(container)])
            if container.get("name").and_then(Value::as_str) == Some(CONTAINER) =>
        {
            Ok(container)
        }
        _ => Err(format!(
            "spec.containers: {count} given; write exactly one, named {CONTAINER} (as a native \
             sidecar it is moved to the init containers)"
        )),
    }
}

fn object(value: Option<Value>, path: &str) -> Result<Map<String, Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) if path.is_empty() => Err("not a mapping; write a partial pod".to_owned()),
        Some(_) => Err(format!("{path}: not a mapping")),
    }
}

fn list(value: Option<Value>, path: &str) -> Result<Vec<Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => match items.iter().position(|item| name_of(item).is_empty()) {
            None => Ok(items),
            Some(i) => Err(format!("{path}[{i}]: a name is missing")),
        },
        Some(_) => Err(format!("{path}: not a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_templates_are_restricted_and_mount_only_their_own() {
        for mesh in [Mesh::Istio, Mesh::None] {
            let template = Template::builtin(mesh).unwrap();
            let security = &template.container["securityContext"];
            assert_eq!(security["runAsUser"], crate::USER);
            assert_eq!(security["runAsNonRoot"], true);
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"][0], "ALL");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
            let volumes: Vec<&str> = template.volumes.iter().map(name_of).collect();
            let mounts = template.container["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.iter().map(name_of).collect::<Vec<_>>(), volumes);
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                assert!(template.container[probe]["exec"].is_object(), "{probe}");
            }
            // A port's name has at most 15 characters.
            let ports = template.container["ports"].as_array().unwrap();
            assert!(ports.iter().all(|port| (1..=15).contains(&name_of(port).len())));
        }
    }

    #[test]
    fn what_a_template_cannot_be_is_said() {
        for (text, expected) in [
            ("[]", "t: not a mapping"),
            ("a: {{ .Values.x }}", "t: it holds {{ }}"),
            ("spec: {containers: [{name: cache}]}", "t: spec.containers: 1 given; write exactly"),
            ("spec: {containers: [{image: x}]}", "t: spec.containers[0]: a name is missing"),
            ("spec: {containers: 3}", "t: spec.containers: not a list"),
            (
                "spec: {containers: [{name: outrigger}], hostNetwork: true}",
                "t: spec.hostNetwork: a template cannot set this",
            ),
            (
                "spec: {containers: [{name: outrigger}], volumes: [{name: tmp}]}",
                "t: spec.volumes[0].name: \"tmp\" could be a volume of the pod",
            ),
            ("metadata: {name: x}\nspec: {containers: [{name: outrigger}]}", "t: metadata.name: "),
        ] {
            let error = Template::from_yaml("t", text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
