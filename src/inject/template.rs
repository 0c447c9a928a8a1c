//! The template: a partial pod with the container and its volumes.

use outrigger_diagnostic::Diagnostic;
use serde_json::{Map, Value};

use crate::CONTAINER;
use crate::merge::name_of;
use crate::mesh::Mesh;

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
    /// The template that is used where an injection file names none.
    ///
    /// # Errors
    /// None in a build that has passed its tests.
    pub fn builtin(mesh: Mesh) -> Result<Self, Diagnostic> {
        match mesh {
            Mesh::Istio => Self::from_yaml("the built-in template for Istio", ISTIO),
            Mesh::None => Self::from_yaml("the built-in template without a mesh", STANDALONE),
        }
    }

    /// Reads a template from YAML.
    ///
    /// # Errors
    /// When it is no partial pod with just our container.
    pub fn from_yaml(origin: &str, text: &str) -> Result<Self, Diagnostic> {
        if text.contains("{{") {
            let reason = "it holds {{ }}, as templates of Istio's injector do";
            return Err(Diagnostic::new(reason).in_source(origin).fix(
                "this one is plain YAML, and what differs between pods is said by annotations",
            ));
        }
        let value: Value = serde_yaml::from_str(text)
            .map_err(|error| Diagnostic::new(error.to_string()).in_source(origin))?;
        Self::from_value(origin, value)
    }

    /// Reads a template that is parsed already.
    ///
    /// # Errors
    /// When it is no partial pod with just our container.
    pub fn from_value(origin: &str, value: Value) -> Result<Self, Diagnostic> {
        Self::of_pod(value).map_err(|found| found.in_source(origin))
    }

    fn of_pod(value: Value) -> Result<Self, Diagnostic> {
        let mut pod = object(Some(value), "")?;
        pod.retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
        let mut metadata = object(pod.remove("metadata"), "metadata")?;
        let mut spec = object(pod.remove("spec"), "spec")?;
        let template = Template {
            container: only_ours(list(spec.remove("containers"), "spec.containers")?)?,
            volumes: list(spec.remove("volumes"), "spec.volumes")?,
            pull_secrets: list(spec.remove("imagePullSecrets"), "spec.imagePullSecrets")?,
            labels: object(metadata.remove("labels"), "metadata.labels")?,
            annotations: object(metadata.remove("annotations"), "metadata.annotations")?,
        };
        for (path, rest) in [("", &pod), ("metadata.", &metadata), ("spec.", &spec)] {
            if let Some(key) = rest.keys().next() {
                let fix = "it may hold spec.containers, spec.volumes, spec.imagePullSecrets, \
                           metadata.labels and metadata.annotations";
                return Err(Diagnostic::new("a template cannot set this")
                    .at(format!("{path}{key}"))
                    .fix(fix));
            }
        }
        template.check_volumes()?;
        Ok(template)
    }

    /// The image that the template names.
    pub fn image(&self) -> Option<&str> {
        self.container.get("image").and_then(Value::as_str)
    }

    /// Volumes of the template begin with `outrigger-`: no volume of a pod may be taken for one.
    fn check_volumes(&self) -> Result<(), Diagnostic> {
        for (i, volume) in self.volumes.iter().enumerate() {
            let name = name_of(volume);
            if !name.starts_with("outrigger-") {
                return Err(Diagnostic::new(format!("\"{name}\" could be a volume of the pod"))
                    .at(format!("spec.volumes[{i}].name"))
                    .fix("begin it with outrigger-"));
            }
        }
        Ok(())
    }
}

fn only_ours(containers: Vec<Value>) -> Result<Map<String, Value>, Diagnostic> {
    let count = containers.len();
    match <[Value; 1]>::try_from(containers) {
        Ok([Value::Object(container)])
            if container.get("name").and_then(Value::as_str) == Some(CONTAINER) =>
        {
            Ok(container)
        }
        _ => Err(Diagnostic::new(format!("{count} given")).at("spec.containers").fix(format!(
            "write exactly one, named {CONTAINER} (as a native sidecar it is moved to the init \
             containers)"
        ))),
    }
}

fn object(value: Option<Value>, path: &str) -> Result<Map<String, Value>, Diagnostic> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) if path.is_empty() => {
            Err(Diagnostic::new("not a mapping").fix("write a partial pod"))
        }
        Some(_) => Err(Diagnostic::new("not a mapping").at(path)),
    }
}

fn list(value: Option<Value>, path: &str) -> Result<Vec<Value>, Diagnostic> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => match items.iter().position(|item| name_of(item).is_empty()) {
            None => Ok(items),
            Some(i) => Err(Diagnostic::new("a name is missing").at(format!("{path}[{i}]"))),
        },
        Some(_) => Err(Diagnostic::new("not a list").at(path)),
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
