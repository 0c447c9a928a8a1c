//! What an Envoy is configured with: answers that were captured from istiod.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::json::any_of;
use super::proto::{Any, CDS, EDS, LDS, RDS};

/// Resources by type URL, each with its name.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet(BTreeMap<&'static str, Vec<(String, Any)>>);

impl ResourceSet {
    /// Reads `{cds, lds, rds, eds}`, each a list of resources as JSON.
    pub fn read(file: &Path) -> Result<Self, String> {
        Self::from_json(&read_json(file)?)
    }

    /// The same from JSON, for a test that changes it first.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let mut set = BTreeMap::new();
        for (key, type_url) in [("cds", CDS), ("lds", LDS), ("rds", RDS), ("eds", EDS)] {
            let mut resources = Vec::new();
            for resource in json[key].as_array().into_iter().flatten() {
                let name = resource["name"].as_str().or(resource["cluster_name"].as_str());
                let name = name.ok_or_else(|| format!("a resource of {key} has no name"))?;
                let any = any_of(resource).map_err(|e| format!("{key} {name}: {e}"))?;
                resources.push((name.to_owned(), any));
            }
            set.insert(type_url, resources);
        }
        Ok(Self(set))
    }

    /// The resources of a type.
    pub fn of(&self, type_url: &str) -> Option<&Vec<(String, Any)>> {
        self.0.get(type_url)
    }
}

/// Reads a JSON file, or says what is wrong with which one.
pub fn read_json(file: &Path) -> Result<Value, String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| at(&e))?;
    serde_json::from_str(&text).map_err(|e| at(&e))
}
