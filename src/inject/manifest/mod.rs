//! Injection into a stream of YAML documents: what `outrigger inject` does.
//!
//! Objects without a pod template keep their text byte for byte. The others are written anew, with
//! their keys in order; comments within them are lost, those before them stay.

use outrigger_diagnostic::Diagnostic;
use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use crate::config::Options;
use crate::pod::{Choice, choice, inject};
use crate::yaml;

mod convert;
mod stream;

use convert::{ambiguous, octal, text_of, update};
use stream::{Part, documents};

/// A stream with Outrigger in its workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// The stream as YAML.
    pub text: String,
    /// How many pod templates have Outrigger in them now.
    pub pods: usize,
    /// What has no effect, and what was left out.
    pub warnings: Vec<String>,
}

/// Injects into every pod template of a stream but those that are labelled `"false"`.
///
/// # Errors
/// The first document that is not valid, or into which Outrigger cannot be put.
pub fn inject_stream(text: &str, options: &Options) -> Result<Injected, Diagnostic> {
    let mut injected = Injected::default();
    for (i, part) in documents(text).iter().enumerate() {
        let mut walk = Walk { options, document: i + 1, injected: &mut injected };
        walk.part(part)?;
    }
    Ok(injected)
}

/// The walk through one document of a stream.
struct Walk<'a> {
    options: &'a Options,
    document: usize,
    injected: &'a mut Injected,
}

impl Walk<'_> {
    fn part(&mut self, part: &Part<'_>) -> Result<(), Diagnostic> {
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
        // Comments before the document stay: Helm writes the name of the template there.
        let (preamble, marker) = part.preamble();
        self.injected.text.push_str(preamble);
        self.injected.text.push_str(marker);
        self.injected.text.push_str(&yaml::write(&yaml));
        Ok(())
    }

    fn parse(&self, part: &Part<'_>) -> Result<Yaml, Diagnostic> {
        let refused = |error: serde_yaml::Error| {
            let line = error.location().map_or(part.line, |place| part.line + place.line());
            let mut reason = error.to_string();
            if let Some(cut) = reason.rfind(" at line ") {
                reason.truncate(cut);
            }
            Diagnostic::new(format!("line {line}: {reason}")).in_source(self.place(""))
        };
        let mut yaml: Yaml = serde_yaml::from_str(part.text).map_err(refused)?;
        yaml.apply_merge().map_err(refused)?;
        Ok(yaml)
    }

    /// Which document it is, counted from 1, with the object in it if one is known.
    fn place(&self, object: &str) -> String {
        match object {
            "" => format!("document {}", self.document),
            object => format!("document {} ({object})", self.document),
        }
    }

    /// Injects into an object, or into the items of a list.
    fn object(&mut self, yaml: &mut Yaml, path: &str, part: &Part<'_>) -> Result<(), Diagnostic> {
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
                    return Err(Diagnostic::new("it is missing")
                        .at(path)
                        .fix(format!("a {} needs one", kind(&name)))
                        .in_source(self.place(&name)));
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
    ) -> Result<(), Diagnostic> {
        let place = self.place(name);
        let refused = |found: Diagnostic| found.below(path).in_source(place.as_str());
        octal(pod);
        let before: Json = serde_json::to_value(&*pod).map_err(|error| {
            Diagnostic::new(error.to_string())
                .at(path.trim_end_matches('.'))
                .in_source(place.as_str())
        })?;
        if choice(&before).map_err(refused)? == Choice::Declined {
            return Ok(());
        }
        if let Some((line, word)) = ambiguous(part, pod) {
            let reason = format!(
                "line {line}: `{word}` without quotes is a boolean for Kubernetes and a string by \
                 YAML 1.2"
            );
            let fix = format!("write true, false or \"{word}\"");
            return Err(Diagnostic::new(reason).fix(fix).in_source(place));
        }
        let after = inject(&before, self.options).map_err(refused)?;
        for warning in &after.warnings {
            self.injected.warnings.push(format!("{place}: {path}{warning}"));
        }
        update(pod, &after.pod);
        self.injected.pods += 1;
        Ok(())
    }
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

/// Kind, namespace and name of an object, such as `Deployment shop/cart`.
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
