//! `outrigger check`: the same code that loads files, without running anything.

use std::path::{Path, PathBuf};

use outrigger_policy::check::check as check_policy;

use crate::app::config::Loaded;
use crate::cli::CliError;
use crate::istio::embedded_policies;

/// Checks files; says `ok` for each good one and the place, reason and fix for each bad one.
pub(super) fn check(files: &[PathBuf]) -> Result<(), CliError> {
    let mut bad = 0;
    for file in files {
        match check_file(file) {
            Ok(kind) => println!("{}: ok ({kind})", file.display()),
            Err(error) => {
                eprintln!("{error}");
                bad += 1;
            }
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(CliError::Usage("1 file is not valid".to_owned())),
        n => Err(CliError::Usage(format!("{n} files are not valid"))),
    }
}

fn check_file(file: &Path) -> Result<String, String> {
    let source = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{source}: cannot read the file: {error}"))?;
    if is_kubernetes(&text) {
        return check_objects(&source, &text);
    }
    if is_policy(&text) {
        let document = check_policy(&source, &text).map_err(|error| error.to_string())?;
        let count = document.routes.len();
        return Ok(format!("policy, {count} route{}", if count == 1 { "" } else { "s" }));
    }
    let plan = Loaded::from_text(&source, text).and_then(Loaded::plan);
    plan.map(|_| "bootstrap".to_owned()).map_err(|error| match error.to_string() {
        // A value that is missing has no line.
        reason if reason.starts_with(&source) => reason,
        reason => format!("{source}: {reason}"),
    })
}

/// Checks the policies that Kubernetes objects carry to istiod.
fn check_objects(source: &str, text: &str) -> Result<String, String> {
    let found = embedded_policies(text).map_err(|reason| format!("{source}: {reason}"))?;
    for (place, document) in &found {
        // The line is one of the document alone.
        check_policy(source, document)
            .map_err(|found| found.on(None).in_source(format!("{source}: {place}")).to_string())?;
    }
    match found.len() {
        0 => Err(format!(
            "{source}: no policy in it; an EnvoyFilter carries one as a resource outrigger/mesh, \
             outrigger/namespace or outrigger/workload"
        )),
        1 => Ok("1 policy in Kubernetes objects".to_owned()),
        n => Ok(format!("{n} policies in Kubernetes objects")),
    }
}

fn is_kubernetes(text: &str) -> bool {
    let top = |name: &str| text.lines().any(|line| line.starts_with(name));
    top("apiVersion:") && top("kind:")
}

/// A file whose top level says `routes`, `guard`, `inbound`, `outbound` or `aliases` is a policy; an empty one is an empty policy.
fn is_policy(text: &str) -> bool {
    let key = |line: &str| {
        let line = line.trim_start_matches('{').trim_start();
        let named = |name| line.strip_prefix(name).map(str::trim_start);
        ["routes", "guard", "inbound", "outbound", "aliases"]
            .into_iter()
            .filter_map(named)
            .any(|rest| rest.starts_with(':'))
    };
    let mut lines = text.lines().filter(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---"
    });
    let Some(first) = lines.next() else { return true };
    key(first) || lines.any(key)
}
