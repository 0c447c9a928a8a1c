//! `outrigger inject`: what it prints, and how it refuses.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use outrigger_test_support::outrigger;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/files")
}

fn run(args: &[&str], input: &str) -> Output {
    let mut child = outrigger()
        .arg("inject")
        .args(args)
        .current_dir(files())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It may refuse before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// All that it says, with its exit code.
fn shown(args: &[&str], input: &str) -> String {
    let output = run(args, input);
    let mut shown = format!("$ outrigger inject {}\n", args.join(" "));
    shown.push_str(&String::from_utf8_lossy(&output.stdout));
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        writeln!(shown, "! {line}").unwrap();
    }
    writeln!(shown, "= {}", output.status.code().unwrap_or(-1)).unwrap();
    shown
}

fn snapshot(name: &str, shown: &str) {
    // The version changes with each release.
    let filters = vec![(r"(outrigger:|\\?version\\?.:\\?.)\d+\.\d+\.\d+", "${1}VERSION")];
    insta::with_settings!({filters => filters}, { insta::assert_snapshot!(name, shown) });
}

#[test]
fn workloads_get_it_and_other_objects_keep_their_text() {
    let shown = shown(&["-f", "shop.yaml"], "");
    let untouched = std::fs::read_to_string(files().join("shop.yaml")).unwrap();
    let config_map =
        &untouched[..untouched.find("---\n# Source: shop/templates/cart-dep").unwrap()];
    assert!(shown.contains(config_map), "byte for byte");
    snapshot("istio", &shown);
}

#[test]
fn a_second_injection_prints_the_same() {
    for more in [&["--native"][..], &["--native", "--mesh", "none"], &["--mode", "outbound"]] {
        let args = [&["-f", "-"][..], more].concat();
        let file = std::fs::read_to_string(files().join("shop.yaml")).unwrap();
        let once = run(&args, &file);
        assert_eq!(once.status.code(), Some(0), "{}", String::from_utf8_lossy(&once.stderr));
        let once = String::from_utf8(once.stdout).unwrap();
        let twice = String::from_utf8(run(&args, &once).stdout).unwrap();
        assert_eq!(twice, once, "{more:?}");
    }
}

#[test]
fn strings_stay_strings_and_modes_stay_numbers() {
    let output = String::from_utf8(run(&["-f", "shop.yaml"], "").stdout).unwrap();
    for kept in ["value: \"on\"", "value: \"1e3\"", "- \"yes\"", "defaultMode: 493"] {
        assert!(output.contains(kept), "{kept} in\n{output}");
    }
}

#[test]
fn jobs_get_native_sidecars() {
    let file = std::fs::read_to_string(files().join("jobs.yaml")).unwrap();
    let annotated = file.replace(
        "  generateName: shell-",
        "  generateName: shell-\n  annotations:\n    outrigger.io/upstream-port: \"3001\"",
    );
    snapshot(
        "jobs",
        &shown(&["-f", "-", "--mesh", "none", "--native", "--image", "r.io/o:9"], &annotated),
    );
}

#[test]
fn the_file_of_the_chart_is_read_and_flags_win() {
    snapshot("config", &shown(&["-f", "jobs.yaml", "--config", "injection.conf"], ""));
    let other = run(&["-f", "jobs.yaml", "--config", "injection.conf", "--image", "other:1"], "");
    let other = String::from_utf8(other.stdout).unwrap();
    assert!(other.contains("image: other:1") && !other.contains("registry.example/outrigger"));
}

#[test]
fn refusals_name_document_object_path_and_fix() {
    let pod =
        |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    let app = "containers: [{name: app}]";
    let cases = [
        (vec!["-f", "jobs.yaml"], String::new()),
        (vec!["-f", "jobs.yaml", "--native", "--mesh", "none"], String::new()),
        (vec!["-f", "missing.yaml"], String::new()),
        (vec!["-f", "jobs.yaml", "--config", "missing.yaml"], String::new()),
        (vec!["-f", "jobs.yaml", "--config", "jobs.yaml"], String::new()),
        (vec!["-f", "jobs.yaml", "--mode", "both"], String::new()),
        (vec!["-f", "jobs.yaml", "--mesh", "linkerd"], String::new()),
        (vec!["-f", "jobs.yaml", "--native", "--image", "a b"], String::new()),
        (vec!["-f", "-"], format!("a: 1\n---\n{}", pod(&format!("{{hostNetwork: true, {app}}}")))),
        (vec!["-f", "-"], "a: 1\n---\nb:\n  c: [\n".to_owned()),
        (vec!["-f", "-"], "apiVersion: apps/v1\nkind: Deployment\nspec: {}\n".to_owned()),
        (vec!["-f", "-"], "a: 1\n".to_owned()),
        (
            vec!["-f", "-"],
            format!("# one\n---\n{}", pod("\n  hostIPC: no\n  containers: [{name: app}]")),
        ),
        (
            vec!["-f", "-"],
            format!(
                "apiVersion: v1\nkind: List\nitems:\n- {}",
                pod(&format!("{{{app}}}")).replace('\n', "\n  ").replace(
                    "{name: a}",
                    "{name: a, annotations: {outrigger.io/imgae: x, outrigger.io/memory: 1}}"
                )
            ),
        ),
    ];
    let all: Vec<String> = cases.iter().map(|(args, input)| shown(args, input)).collect();
    for (shown, (args, input)) in all.iter().zip(&cases) {
        let expected = if input == "a: 1\n" { "= 0\n" } else { "= 64\n" };
        assert!(shown.ends_with(expected), "{args:?}: {shown}");
    }
    snapshot("refusals", &all.join("\n"));
}
