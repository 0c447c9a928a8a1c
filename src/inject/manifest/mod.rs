//! Injection into a stream of YAML documents: what `outrigger inject` does.
//!
//! Objects without a pod template keep their text byte for byte. The others are written anew, with
//! their keys in order; comments within them are lost, those before them stay.

use std::fmt;

use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use crate::config::Options;
use crate::error::Refusal;
use crate::pod::{Choice, choice, inject};
use crate::yaml;

mod convert;
mod stream;

use convert::{ambiguous, octal, update};
use stream::{Part, documents};

/// Why a stream was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ManifestError {
    /// Which document, and what it is.
    pub place: Place,
    /// Path, reason and fix.
    pub reason: String,
}

/// Where something is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The document, counted from 1.
    pub document: usize,
    /// Kind and name, where they are known.
    pub object: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        if !self.object.is_empty() {
            write!(f, " ({})", self.object)?;
        }
        Ok(())
    }
}

/// A stream with Outrigger in its workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// The YAML.
    pub text: String,
    /// How many pod templates Outrigger is in now.
    pub pods: usize,
    /// What has no effect, and what was left out.
    pub warnings: Vec<String>,
}

/// Injects into every pod template of a stream but those that are labelled `"false"`.
///
/// # Errors
/// The first document that is not valid, or into which Outrigger cannot be put.
pub fn inject_stream(text: &str, options: &Options) -> Result<Injected, ManifestError> {
    let mut injected = Injected::default();
    for (i, part) in documents(text).iter().enumerate() {
        let mut walk = Walk { options, document: i + 1, injected: &mut injected };
        walk.part(part)?;
    }
    Ok(injected)
}

/// Walks one document.
struct Walk<'a> {
    options: &'a Options,
    document: usize,
    injected: &'a mut Injected,
}

impl Walk<'_> {
    fn part(&mut self, part: &Part<'_>) -> Result<(), ManifestError> {
        if part.is_blank() {
            self.injected.text.push_str(part.text);
            return Ok(());
        }
        let mut yaml = self.parse(part)?;
        let before = self.injected.pods;
        let path = String::new();
        self.object(&mut yaml, &path, part)?;
        if self.injected.pods == before {
            self.injected.text.push_str(part.text);
            if !part.text.ends_with('\n') {
                self.injected.text.push('\n');
            }
            return Ok(());
        }
        // What was said before the document stays: Helm names the template there.
        let (preamble, marker) = part.preamble();
        self.injected.text.push_str(preamble);
        self.injected.text.push_str(marker);
        self.injected.text.push_str(&yaml::write(&yaml));
        Ok(())
    }

    fn parse(&self, part: &Part<'_>) -> Result<Yaml, ManifestError> {
        let refused = |error: serde_yaml::Error| {
            let line = error.location().map_or(part.line, |place| part.line + place.line());
            let mut reason = error.to_string();
            if let Some(cut) = reason.rfind(" at line ") {
                reason.truncate(cut);
            }
            self.refuse("", format!("line {line}: {reason}"))
        };
        let mut yaml: Yaml = serde_yaml::from_str(part.text).map_err(refused)?;
        yaml.apply_merge().map_err(refused)?;
        Ok(yaml)
    }

    fn refuse(&self, object: &str, reason: String) -> ManifestError {
        let place = Place { document: self.document, object: object.to_owned() };
        ManifestError { place, reason }
    }

    /// Injects into an object, or into the items of a list.
    fn object(
        &mut self,
        yaml: &mut Yaml,
        path: &str,
        part: &Part<'_>,
    ) -> Result<(), ManifestError> {
        let is_list = text_of(yaml, "kind") == "List" && text_of(yaml, "apiVersion") == "v1";
        if let (true, Some(Yaml::Sequence(items))) = (is_list, yaml.get_mut("items")) {
            for (i, item) in items.iter_mut().enumerate() {
                self.object(item, &format!("{path}items[{i}]."), part)?;
            }
            return Ok(());
        }
        let Some(steps) = pod_template(yaml) else { return Ok(()) };
        let name = describe(yaml);
        let mut place = yaml;
        let mut path = path.to_owned();
        for step in steps {
            path.push_str(step);
            place = match place.get_mut(*step) {
                Some(inner) => inner,
                None => {
                    let reason = format!("{path}: it is missing; a {} needs one", kind(&name));
                    return Err(self.refuse(&name, reason));
                }
            };
            path.push('.');
        }
        self.pod(place, &name, &path, part)
    }

    fn pod(
        &mut self,
        pod: &mut Yaml,
        name: &str,
        path: &str,
        part: &Part<'_>,
    ) -> Result<(), ManifestError> {
        let refused = |refusal: Refusal| self.refuse(name, format!("{path}{refusal}"));
        octal(pod);
        let before: Json = serde_json::to_value(&*pod)
            .map_err(|error| self.refuse(name, format!("{path}: {error}")))?;
        if choice(&before).map_err(refused)? == Choice::Declined {
            return Ok(());
        }
        if let Some((line, word)) = ambiguous(part, pod) {
            let reason = format!(
                "line {line}: `{word}` without quotes is a boolean for Kubernetes and a string by \
                 YAML 1.2; write true, false or \"{word}\""
            );
            return Err(self.refuse(name, reason));
        }
        let after = inject(&before, self.options).map_err(refused)?;
        let place = Place { document: self.document, object: name.to_owned() };
        for warning in &after.warnings {
            self.injected.warnings.push(format!("{place}: {path}{warning}"));
        }
        update(pod, &after.pod);
        self.injected.pods += 1;
        Ok(())
    }
}

fn text_of<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml.get(key).and_then(Yaml::as_str).unwrap_or("")
}

/// Where an object keeps its pod, or its pod template. Kinds count with their group: others have
/// their own `Job`.
fn pod_template(yaml: &Yaml) -> Option<&'static [&'static str]> {
    let group = text_of(yaml, "apiVersion").split_once('/').map_or("", |(group, _)| group);
    match (group, text_of(yaml, "kind")) {
        ("", "Pod") => Some(&[]),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
            Some(&["spec", "template"])
        }
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// `Deployment shop/cart`.
fn describe(yaml: &Yaml) -> String {
    let metadata = yaml.get("metadata").unwrap_or(&Yaml::Null);
    let named = match text_of(metadata, "name") {
        "" => text_of(metadata, "generateName"),
        name => name,
    };
    let kind = text_of(yaml, "kind");
    match (text_of(metadata, "namespace"), named) {
        (_, "") => format!("{kind} without a name"),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

fn kind(described: &str) -> &str {
    described.split(' ').next().unwrap_or("workload")
}
