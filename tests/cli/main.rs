//! `outrigger check` and `outrigger explain` on good and bad files, as snapshots: what an operator
//! reads is part of the contract.
//!
//! `INSTA_UPDATE=always cargo test --test cli` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod istio;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use outrigger_test_support::outrigger;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/files")
}

/// Runs the command in the folder of the files and shows all that it says.
fn run(args: &[&str]) -> String {
    let output = outrigger().args(args).current_dir(files()).output().expect("the binary starts");
    let mut shown = String::new();
    write!(shown, "$ outrigger {}\n{}", args.join(" "), String::from_utf8_lossy(&output.stdout))
        .unwrap();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        writeln!(shown, "! {line}").unwrap();
    }
    writeln!(shown, "= {}", output.status.code().unwrap_or(-1)).unwrap();
    shown
}

#[test]
fn check_says_where_why_and_what_to_write() {
    let mut names: Vec<String> = std::fs::read_dir(files())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 12, "{names:?}");
    let shown: Vec<String> = names.iter().map(|name| run(&["check", name])).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn check_looks_at_every_file() {
    insta::assert_snapshot!(run(&["check", "bad-host.yaml", "good-empty.yaml", "missing.yaml"]));
}

#[test]
fn explain_tells_route_key_and_decisions() {
    let policy = ["explain", "--policy", "good-catalog.yaml"];
    let catalog = "http://catalog.shop.svc/products/7?b=2&utm_source=x&a=1";
    let questions: [&[&str]; 9] = [
        &["GET", catalog],
        &["GET", catalog, "-H", "Accept-Language: de", "--response-header", "ETag: \"1\""],
        &["GET", catalog, "--status", "404"],
        &["GET", catalog, "--response-header", "Cache-Control: max-age=3600, must-revalidate"],
        &["GET", catalog, "--response-header", "Set-Cookie: a=1"],
        &["GET", catalog, "-H", "Authorization: Bearer x", "--status", "200"],
        &["GET", "http://other.svc/", "--status", "200"],
        &["POST", catalog],
        &["GET", catalog, "-H", "Cache-Control: no-store"],
    ];
    let shown: Vec<String> =
        questions.iter().map(|question| run(&[&policy[..], question].concat())).collect();
    insta::with_settings!({filters => [(r"max-age=\d+", "max-age=N")]}, {
        insta::assert_snapshot!(shown.join("\n"));
    });
}

#[test]
fn explain_refuses_what_it_cannot_read() {
    let wrong: [&[&str]; 4] = [
        &["explain", "--policy", "missing.yaml", "GET", "http://a/"],
        &["explain", "--policy", "bad-field.yaml", "GET", "http://a/"],
        &["explain", "--policy", "good-empty.yaml", "GET", "/a"],
        &["explain", "--policy", "good-empty.yaml", "GET", "http://a/", "-H", "nonsense"],
    ];
    let shown: Vec<String> = wrong.iter().map(|args| run(args)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for kind in ["policies", "bootstrap"] {
        for entry in std::fs::read_dir(folder.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let shown = run(&["check", path.to_str().unwrap()]);
            assert!(shown.ends_with("= 0\n"), "{shown}");
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} examples");
}

#[test]
fn schemas_are_json_and_name_the_contract() {
    for (kind, field) in [("policy", "whileRevalidate"), ("config", "headerReadTimeoutMs")] {
        let shown = run(&["schema", kind]);
        let body = shown.split_once('\n').unwrap().1.rsplit_once("= 0").unwrap().0;
        let schema: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(schema.is_object() && body.contains(field), "{kind}");
    }
}
