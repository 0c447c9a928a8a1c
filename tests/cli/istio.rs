//! `outrigger istio`: what it prints is what lies in `istio/`, and its mistakes name the argument.

use std::path::Path;

use super::run;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("istio").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a command prints, which must succeed.
fn printed(args: &[&str]) -> String {
    let shown = run(args);
    let (_, out) = shown.split_once('\n').unwrap();
    out.strip_suffix("= 0\n").unwrap_or_else(|| panic!("{shown}")).to_owned()
}

const INBOUND: [&str; 12] = [
    "istio",
    "render",
    "--mode",
    "inbound",
    "--name",
    "reviews",
    "--namespace",
    "bookinfo",
    "--selector",
    "app=reviews",
    "--port",
    "8080",
];
const OUTBOUND: [&str; 14] = [
    "istio",
    "render",
    "--mode",
    "outbound",
    "--name",
    "frontend",
    "--namespace",
    "shop",
    "--selector",
    "app=frontend",
    "--port",
    "9080",
    "--host",
    "reviews.bookinfo.svc.cluster.local",
];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(more).copied().collect()
}

#[test]
fn the_files_are_what_the_command_prints() {
    assert_eq!(printed(&INBOUND), file("inbound.yaml"));
    let sidecar = printed(&with(&INBOUND, &["--variant", "sidecar"]));
    assert_eq!(sidecar, file("inbound-sidecar.yaml"));
    assert_eq!(printed(&OUTBOUND), file("outbound.yaml"));
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies/mesh.yaml");
    let args = ["istio", "policy", "--scope", "workload", "--namespace", "bookinfo"];
    let more = ["--name", "reviews-cache", "--selector", "app=reviews", "-f"];
    let args = with(&with(&args, &more), &[policy.to_str().unwrap()]);
    assert_eq!(printed(&args), file("policy-workload.yaml"));
}

#[test]
fn policies_in_objects_are_valid() {
    for name in ["policy-mesh.yaml", "policy-namespace.yaml", "policy-workload.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("istio").join(name);
        let shown = run(&["check", path.to_str().unwrap()]);
        assert!(shown.ends_with("ok (1 policy in Kubernetes objects)\n= 0\n"), "{shown}");
    }
}

#[test]
fn every_file_begins_with_what_it_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("istio");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".yaml") {
            continue;
        }
        files += 1;
        let text = file(&name);
        assert!(text.starts_with("# "), "{name}");
        for document in text.split("---\n") {
            assert!(document.starts_with("# "), "{name}: each object says what it does");
        }
        assert!(file("README.md").contains(&format!("`{name}`")), "{name} is in the README");
    }
    assert_eq!(files, 10);
}

#[test]
fn the_stages_are_the_whole() {
    for args in [&INBOUND[..], &OUTBOUND[..]] {
        let stages = ["egress", "clusters", "routes"];
        let stages = stages.map(|name| printed(&with(args, &["--stage", name])));
        assert!(!stages[1].contains("HTTP_ROUTE") && !stages[2].contains("applyTo: CLUSTER"));
        let all: Vec<&str> = stages.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        assert_eq!(all.join("---\n"), printed(args));
    }
}

#[test]
fn mistakes_name_the_argument() {
    let cases: [Vec<&str>; 7] = [
        with(&INBOUND[..8], &["--port", "8080"]),
        with(&INBOUND, &["--host", "reviews"]),
        with(&OUTBOUND, &["--port", "80"]),
        with(&OUTBOUND[..12], &[]),
        with(&OUTBOUND, &["--host", "a b"]),
        with(&INBOUND, &["--hang-after", "0"]),
        with(&INBOUND, &["--variant", "sidecar", "--stage", "routes"]),
    ];
    let shown: Vec<String> = cases.iter().map(|args| run(args)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}
