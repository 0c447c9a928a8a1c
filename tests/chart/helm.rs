//! Helm as a child process, with a home of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use outrigger_test_support::installed;
use serde::Deserialize;
use serde_json::Value;

/// Namespace of the release.
pub const NAMESPACE: &str = "caches";
/// Name of the release.
pub const RELEASE: &str = "or";
/// What the names of its objects begin with.
pub const NAME: &str = "or-outrigger";

static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The chart.
pub fn chart() -> String {
    repository("charts/outrigger").to_str().unwrap().to_owned()
}

/// What a run of Helm said.
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// Runs Helm; `values` go to its standard input, where `-f -` reads them.
pub fn helm(args: &[&str], values: &Value) -> Said {
    let home = HOME.path();
    let mut child = Command::new(installed("bin/helm"))
        .args(args)
        .envs([("HOME", home), ("KUBECONFIG", &home.join("kubeconfig"))])
        .envs([("KUBECACHEDIR", home), ("HELM_CACHE_HOME", home)])
        .envs([("HELM_CONFIG_HOME", home), ("HELM_DATA_HOME", home)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm starts");
    // A run that does not read them ends without: no reason to fail.
    let _ = child.stdin.take().unwrap().write_all(values.to_string().as_bytes());
    let output = child.wait_with_output().expect("helm ends");
    Said {
        ok: output.status.success(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `helm template` on our chart.
pub fn template(values: &Value) -> Said {
    helm(&["template", RELEASE, &chart(), "--namespace", NAMESPACE, "-f", "-"], values)
}

/// The objects of the chart with these values.
pub fn objects(values: &Value) -> Vec<Value> {
    let said = template(values);
    assert!(said.ok, "{values}: {}", said.err);
    documents(&said.out)
}

/// The documents of a YAML stream. A key that is there twice is an error.
pub fn documents(text: &str) -> Vec<Value> {
    let parsed = serde_yaml::Deserializer::from_str(text).map(|document| {
        serde_yaml::Value::deserialize(document).unwrap_or_else(|e| panic!("{e}\n{text}"))
    });
    parsed
        .filter(|document| !document.is_null())
        .map(|document| serde_json::to_value(document).unwrap())
        .collect()
}

/// The one object of this kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    let first = found.next().unwrap_or_else(|| panic!("no {kind} {name}: {}", kinds(objects)));
    assert!(found.next().is_none(), "{kind} {name} is there twice");
    first
}

/// Kinds and names, to look at.
pub fn kinds(objects: &[Value]) -> String {
    let one = |o: &Value| {
        format!("{}/{}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap())
    };
    let mut all: Vec<String> = objects.iter().map(one).collect();
    all.sort();
    all.join(" ")
}
