//! EnvoyFilter objects: what istiod accepts, and which of them a node gets.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize as _;
use serde_json::Value;

use super::json::extension_of;
use super::node::Node;
use super::proto::Any;

/// One `EXTENSION_CONFIG` patch.
#[derive(Clone, Debug)]
struct Patch {
    name: String,
    resource: Any,
    version: Option<Regex>,
    metadata: Vec<(String, String)>,
}

/// An EnvoyFilter, as far as ECDS is concerned.
#[derive(Clone, Debug)]
pub struct EnvoyFilter {
    /// The namespace of the object; one in the root namespace is for all.
    pub namespace: String,
    /// The name of the object, not of an extension in it.
    pub name: String,
    priority: i64,
    labels: BTreeMap<String, String>,
    patches: Vec<Patch>,
    /// When it was created, as a count; set by the store.
    pub created: u64,
}

impl EnvoyFilter {
    /// All objects of a YAML text, or the reason why one of them is refused.
    pub fn parse(yaml: &str) -> Result<Vec<Self>, String> {
        let documents = serde_yaml::Deserializer::from_str(yaml);
        let mut filters = Vec::new();
        for document in documents {
            let object = Value::deserialize(document).map_err(|e| e.to_string())?;
            if !object.is_null() {
                filters.push(Self::from_object(&object)?);
            }
        }
        Ok(filters)
    }

    fn from_object(object: &Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, api) = (text(&object["kind"]), text(&object["apiVersion"]));
        if kind != "EnvoyFilter" || api != "networking.istio.io/v1alpha3" {
            return Err(format!("{api} {kind} is not an EnvoyFilter"));
        }
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let namespace = meta["namespace"].as_str().unwrap_or("default").to_owned();
        let name = text(&meta["name"]);
        let at = |why: String| format!("envoyfilter {namespace}/{name}: {why}");
        if name.is_empty() {
            return Err(at("metadata.name is missing".to_owned()));
        }
        let labels = spec["workloadSelector"]["labels"].as_object().into_iter().flatten();
        let labels = labels.map(|(k, v)| (k.clone(), text(v))).collect();
        let mut patches = Vec::new();
        for patch in spec["configPatches"].as_array().into_iter().flatten() {
            patches.extend(Patch::parse(patch).map_err(at)?);
        }
        let priority = spec["priority"].as_i64().unwrap_or_default();
        Ok(Self { namespace, name, priority, labels, patches, created: 0 })
    }

    /// Whether a push for this object goes to nodes of a namespace. The
    /// selector has no say in it.
    pub fn concerns(&self, namespace: &str, root: &str) -> bool {
        self.namespace == root || self.namespace == namespace
    }

    fn selects(&self, node: &Node, root: &str) -> bool {
        self.concerns(&node.namespace, root)
            && self.labels.iter().all(|(k, v)| node.labels.get(k) == Some(v))
    }
}

impl Patch {
    /// `None` for what ECDS does not serve.
    fn parse(patch: &Value) -> Result<Option<Self>, String> {
        let operation = patch["patch"]["operation"].as_str().unwrap_or_default();
        let added = operation == "ADD" || operation.starts_with("INSERT_");
        if patch["applyTo"] != "EXTENSION_CONFIG" || !added {
            return Ok(None);
        }
        let value = &patch["patch"]["value"];
        let resource = extension_of(value).map_err(|e| format!("invalid patch value: {e}"))?;
        let proxy = &patch["match"]["proxy"];
        let version = proxy["proxyVersion"].as_str().map(Regex::new).transpose();
        let version = version.map_err(|e| format!("invalid proxyVersion: {e}"))?;
        let metadata = proxy["metadata"].as_object().into_iter().flatten();
        let metadata = metadata.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().into()));
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        Ok(Some(Self { name, resource, version, metadata: metadata.collect() }))
    }

    fn matches(&self, node: &Node) -> bool {
        let version = node.text("ISTIO_VERSION").unwrap_or_default();
        self.version.as_ref().is_none_or(|regex| !version.is_empty() && regex.is_match(version))
            && self.metadata.iter().all(|(k, v)| node.text(k) == Some(v))
    }
}

/// Every extension of these names for a node, in istiod's order: by priority,
/// the root namespace first, the older first, then by name. A name that two
/// objects carry is there twice.
pub fn extensions<'a>(
    filters: &[EnvoyFilter],
    node: &Node,
    root: &str,
    wanted: impl Fn(&str) -> bool + 'a,
) -> Vec<(String, Any)> {
    if node.kind == "ztunnel" {
        return Vec::new();
    }
    let mut selected: Vec<_> = filters.iter().filter(|f| f.selects(node, root)).collect();
    selected.sort_by_key(|f| {
        (f.priority, f.namespace != root, f.created, format!("{}.{}", f.name, f.namespace))
    });
    let patches = selected.iter().flat_map(|filter| &filter.patches);
    let patches = patches.filter(|patch| wanted(&patch.name) && patch.matches(node));
    patches.map(|patch| (patch.name.clone(), patch.resource.clone())).collect()
}
