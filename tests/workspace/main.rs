//! The rules of the workspace itself: which crate may know which, and which module of a crate may
//! know which.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod imports;
mod manual;
mod modules;

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Allowed edges: a crate, and the crates of this workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("outrigger-diagnostic", &[]),
    ("outrigger-semantics", &[]),
    ("outrigger-guard", &[]),
    ("outrigger-inject", &["outrigger-diagnostic"]),
    ("outrigger-policy", &["outrigger-diagnostic", "outrigger-semantics", "outrigger-guard"]),
    ("outrigger-control", &["outrigger-diagnostic", "outrigger-policy"]),
    ("outrigger-redis", &[]),
    ("outrigger-store", &["outrigger-semantics", "outrigger-redis"]),
    ("outrigger-coherence", &["outrigger-store", "outrigger-redis"]),
    ("outrigger-telemetry", &[]),
    (
        "outrigger-proxy",
        &[
            "outrigger-semantics",
            "outrigger-guard",
            "outrigger-policy",
            "outrigger-store",
            "outrigger-coherence",
            "outrigger-telemetry",
        ],
    ),
    (
        "outrigger",
        &[
            "outrigger-diagnostic",
            "outrigger-semantics",
            "outrigger-guard",
            "outrigger-policy",
            "outrigger-control",
            "outrigger-inject",
            "outrigger-redis",
            "outrigger-store",
            "outrigger-coherence",
            "outrigger-telemetry",
            "outrigger-proxy",
        ],
    ),
    // It knows the product as its users do: by the binary alone.
    ("outrigger-test-support", &[]),
];

#[test]
fn crates_know_only_what_they_may() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, listed, "every crate has its line in ALLOWED");
    for package in &metadata.packages {
        let allowed = ALLOWED.iter().find(|(name, _)| *name == package.name.as_str());
        let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
        for dependency in &package.dependencies {
            let ours = members.contains(dependency.name.as_str());
            if ours && dependency.kind == DependencyKind::Normal {
                assert!(
                    allowed.contains(&dependency.name.as_str()),
                    "{} must not depend on {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn the_engine_and_policy_do_no_input_or_output() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    for name in ["outrigger-semantics", "outrigger-policy"] {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == name).expect("a member");
        for heavy in ["tokio", "hyper", "moka", "tracing"] {
            let found = package
                .dependencies
                .iter()
                .any(|d| d.name == heavy && d.kind == DependencyKind::Normal);
            assert!(!found, "{name} must stay pure and not depend on {heavy}");
        }
    }
}
