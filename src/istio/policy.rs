//! Policy documents in EnvoyFilters: writing one, and finding those in a file.

use outrigger_control::xds::POLICY_TYPE;
use outrigger_diagnostic::Diagnostic;
use serde_yaml::Value;

use crate::istio::values::{check_name, fill, selector};

const POLICY: &str = include_str!("templates/policy.yaml");

/// For whom a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum PolicyScope {
    /// Every workload of the mesh; lives in Istio's root namespace.
    Mesh,
    /// Every workload of a namespace.
    Namespace,
    /// Workloads with certain labels.
    Workload,
}

/// An EnvoyFilter that carries a policy.
#[derive(Clone, Debug)]
pub struct PolicyObject {
    /// Name of the EnvoyFilter.
    pub name: String,
    /// Its namespace; for the mesh, Istio's root namespace.
    pub namespace: String,
    /// For whom the policy is.
    pub scope: PolicyScope,
    /// Labels of the workloads, `key=value`.
    pub selector: Vec<String>,
}

/// The EnvoyFilter that carries a policy document, which has been checked before.
///
/// # Errors
/// With the argument, the reason and the fix.
pub fn render_policy(object: &PolicyObject, document: &str) -> Result<String, Diagnostic> {
    check_name("--name", &object.name, 253, false)?;
    check_name("--namespace", &object.namespace, 63, false)?;
    let selection = match (object.scope, object.selector.is_empty()) {
        (PolicyScope::Workload, true) => {
            let reason = "a policy for a workload needs its labels";
            let fix = "write --selector app=reviews, or --scope namespace";
            return Err(Diagnostic::new(reason).at("--selector").fix(fix));
        }
        (PolicyScope::Workload, false) => {
            format!("  workloadSelector:\n    labels: {}\n", selector(&object.selector)?)
        }
        (PolicyScope::Mesh | PolicyScope::Namespace, true) => String::new(),
        (PolicyScope::Mesh | PolicyScope::Namespace, false) => {
            let reason = "only a policy for a workload selects by labels";
            let fix = "write --scope workload";
            return Err(Diagnostic::new(reason).at("--selector").fix(fix));
        }
    };
    let audience = match object.scope {
        PolicyScope::Mesh => "in the whole mesh".to_owned(),
        PolicyScope::Namespace => format!("in the namespace {}", object.namespace),
        PolicyScope::Workload => "for the workloads with these labels".to_owned(),
    };
    let document: Vec<String> = document
        .lines()
        .filter(|line| *line != "---")
        .map(|line| if line.is_empty() { String::new() } else { format!("            {line}") })
        .collect();
    Ok(fill(
        POLICY,
        &[
            ("name", &object.name),
            ("namespace", &object.namespace),
            ("audience", &audience),
            ("selection", &selection),
            ("scope", object.scope.into()),
            ("document", document.join("\n").trim_end()),
        ],
    ))
}

/// The policy documents in a stream of Kubernetes objects, as JSON, each with the object and the
/// path at which it stands. Objects that carry none are passed over.
///
/// # Errors
/// When the stream cannot be read, or an object carries a document in a form that Outrigger would
/// refuse.
pub fn embedded_policies(text: &str) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut found = Vec::new();
    for (at, part) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let object: Value = serde::Deserialize::deserialize(part).map_err(|error| {
            Diagnostic::new(error.to_string()).in_source(format!("document {}", at + 1))
        })?;
        if object.get("kind").and_then(Value::as_str) != Some("EnvoyFilter") {
            continue;
        }
        let name = object.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str);
        let object_name = format!("EnvoyFilter {}", name.unwrap_or("?"));
        let patches = object.get("spec").and_then(|spec| spec.get("configPatches"));
        let patches = patches.and_then(Value::as_sequence).into_iter().flatten().enumerate();
        for (nth, patch) in patches {
            let path = format!("spec.configPatches[{nth}]");
            let document = embedded(patch, &path).map_err(|found| found.in_source(&object_name))?;
            found.extend(document.map(|document| (format!("{object_name}: {path}"), document)));
        }
    }
    Ok(found)
}

/// The policy document in one patch of an EnvoyFilter, which stands at `path`.
fn embedded(patch: &Value, path: &str) -> Result<Option<String>, Diagnostic> {
    let wrong =
        |below: &str, reason: String| Diagnostic::new(reason).at(format!("{path}.patch.{below}"));
    let value = patch.get("patch").and_then(|patch| patch.get("value"));
    let resource = value.and_then(|value| value.get("name")).and_then(Value::as_str).unwrap_or("");
    if !resource.starts_with("outrigger/") {
        return Ok(None);
    }
    if !matches!(resource, "outrigger/mesh" | "outrigger/namespace" | "outrigger/workload") {
        return Err(wrong("value.name", format!("nobody asks for \"{resource}\""))
            .fix("write outrigger/mesh, outrigger/namespace or outrigger/workload"));
    }
    let operation = patch.get("patch").and_then(|p| p.get("operation")).and_then(Value::as_str);
    if operation != Some("ADD") {
        let reason = "istiod serves nothing but ADD".to_owned();
        return Err(wrong("operation", reason).fix("write ADD"));
    }
    let config = value.and_then(|value| value.get("typed_config").or(value.get("typedConfig")));
    let config = config
        .ok_or_else(|| Diagnostic::new(format!("{path}.patch.value.typed_config is missing")))?;
    let kind = config.get("@type").and_then(Value::as_str).unwrap_or("");
    if kind.ends_with(".TypedStruct") {
        let inner = config.get("type_url").or(config.get("typeUrl")).and_then(Value::as_str);
        if inner != Some(POLICY_TYPE) {
            let reason = format!("\"{}\" is another", inner.unwrap_or(""));
            return Err(
                wrong("value.typed_config.type_url", reason).fix(format!("write {POLICY_TYPE}"))
            );
        }
    } else if !kind.ends_with("google.protobuf.Struct") {
        return Err(wrong("value.typed_config.@type", format!("\"{kind}\" is another"))
            .fix("write type.googleapis.com/udpa.type.v1.TypedStruct"));
    }
    let document = config.get("value").cloned().unwrap_or(Value::Null);
    let document = serde_yaml::to_string(&document);
    document.map(Some).map_err(|error| Diagnostic::new(error.to_string()).at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(scope: PolicyScope, selector: &[&str]) -> PolicyObject {
        PolicyObject {
            name: "reviews-cache".to_owned(),
            namespace: "bookinfo".to_owned(),
            scope,
            selector: selector.iter().map(|label| (*label).to_owned()).collect(),
        }
    }

    const DOCUMENT: &str = "---\n# kept\nroutes:\n  - name: a\n    cache: {ttl: {default: 30s}}\n";

    #[test]
    fn what_is_wrapped_is_found_again() {
        for (scope, selector) in [
            (PolicyScope::Mesh, &[][..]),
            (PolicyScope::Namespace, &[]),
            (PolicyScope::Workload, &["app=reviews"]),
        ] {
            let text = render_policy(&object(scope, selector), DOCUMENT).unwrap();
            assert!(text.contains("            # kept\n"), "{text}");
            let found = embedded_policies(&text).unwrap();
            let document: Value = serde_yaml::from_str(&found[0].1).unwrap();
            assert_eq!(document, serde_yaml::from_str::<Value>(DOCUMENT).unwrap());
            let whole: Value = serde_yaml::from_str(&text).unwrap();
            assert_eq!(
                whole["spec"].get("workloadSelector").is_some(),
                scope == PolicyScope::Workload
            );
        }
    }

    #[test]
    fn scopes_and_selectors_must_agree() {
        let error = render_policy(&object(PolicyScope::Workload, &[]), DOCUMENT).unwrap_err();
        assert!(error.to_string().contains("--scope namespace"), "{error}");
        let error = render_policy(&object(PolicyScope::Mesh, &["a=b"]), DOCUMENT).unwrap_err();
        assert!(error.to_string().contains("--scope workload"), "{error}");
    }

    #[test]
    fn an_object_that_would_not_be_served_is_told() {
        let good = render_policy(&object(PolicyScope::Namespace, &[]), DOCUMENT).unwrap();
        for (from, to, says) in [
            ("operation: ADD", "operation: MERGE", "write ADD"),
            ("outrigger/namespace", "outrigger/reviews", "nobody asks for"),
            (
                "outrigger.v1.Policy",
                "outrigger.v2.Policy",
                "write type.googleapis.com/outrigger.v1",
            ),
            ("udpa.type.v1.TypedStruct", "a.B", "write type.googleapis.com/udpa"),
        ] {
            let error = embedded_policies(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains("configPatches[0]") && error.contains(says), "{error}");
        }
        assert_eq!(embedded_policies("kind: Service\n---\nkind: EnvoyFilter\n"), Ok(vec![]));
    }
}
