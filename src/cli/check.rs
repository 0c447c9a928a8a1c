//! `outrigger check`: checks files by the code that loads them, without running anything.

use std::path::{Path, PathBuf};

use outrigger_diagnostic::Diagnostic;
use outrigger_policy::check::check as check_policy;

use crate::app::error::CliError;
use crate::app::load::Loaded;
use crate::istio::embedded_policies;

/// `outrigger check`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Files to check.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Checks files; prints `ok` for each good one and the place, reason and fix for each bad one.
pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let mut bad = 0;
    for file in &args.files {
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

fn check_file(file: &Path) -> Result<String, Diagnostic> {
    let source = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Diagnostic::new(format!("cannot read the file: {error}")).in_source(source.as_str())
    })?;
    if is_kubernetes(&text) {
        return check_objects(&source, &text);
    }
    if is_policy(&text) {
        let count = check_policy(&source, &text)?.routes.len();
        return Ok(format!("policy, {count} route{}", if count == 1 { "" } else { "s" }));
    }
    Loaded::from_text(&source, text)?.plan().map_err(|found| match found.source {
        Some(_) => found,
        // A value that is missing has no line, and the plan names the file only with a line.
        None => found.in_source(source),
    })?;
    Ok("bootstrap".to_owned())
}

/// Checks the policies that Kubernetes objects carry to istiod.
fn check_objects(source: &str, text: &str) -> Result<String, Diagnostic> {
    let found = embedded_policies(text).map_err(|found| found.in_source(source))?;
    for (place, document) in &found {
        // The position is one within the document, not within the file.
        check_policy(source, document)
            .map_err(|found| found.on(None).in_source(format!("{source}: {place}")))?;
    }
    match found.len() {
        0 => Err(Diagnostic::new("no policy in it").in_source(source).fix(
            "an EnvoyFilter carries one as a resource outrigger/mesh, outrigger/namespace or \
             outrigger/workload",
        )),
        1 => Ok("1 policy in Kubernetes objects".to_owned()),
        n => Ok(format!("{n} policies in Kubernetes objects")),
    }
}

fn is_kubernetes(text: &str) -> bool {
    let top = |name: &str| text.lines().any(|line| line.starts_with(name));
    top("apiVersion:") && top("kind:")
}

/// A file is a policy if its top level names one of a policy's sections, or if it is empty: an empty
/// policy is a valid one.
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
