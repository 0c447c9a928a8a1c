//! The rules within a crate: which module may know which, and that no files import each other in a
//! circle.
//!
//! Imports are read from the sources as text: `use` declarations and paths that begin with
//! `crate`, `self`, `super`, a child module or an imported module. Re-exports are followed to the
//! file that defines the name, so that a `mod.rs` which only re-exports ties nothing together. Code
//! under `#[cfg(test)]` does not count. What a macro writes is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::imports::{Sources, circles};

/// A top-level module and the ones it may import.
struct Room {
    name: &'static str,
    may: &'static [&'static str],
    why: &'static str,
}

/// The modules of the proxy crate, from the top down: each may import modules below it only.
const PROXY: &[Room] = &[
    Room {
        name: "serve",
        may: &[
            "pipeline",
            "client",
            "body/response",
            "state",
            "interim",
            "settings",
            "upstream",
            "body",
            "mesh",
        ],
        why: "accepts connections and hands their requests to the pipeline",
    },
    Room {
        name: "explain",
        may: &["pipeline", "purge", "state", "matcher", "guard"],
        why: "asks the pipeline's own stages what would happen to a request",
    },
    Room {
        name: "pipeline",
        may: &[
            "grpc",
            "matcher",
            "passed",
            "upgrade",
            "client",
            "body/response",
            "state",
            "upstream",
            "guard",
            "coalesce",
            "body",
            "headers",
            "framing",
            "max_forwards",
            "mesh",
            "refusal",
            "error",
        ],
        why: "answers requests; does not know how they came in",
    },
    Room {
        name: "purge",
        may: &["state", "matcher"],
        why: "purges of operators; requests have no part in it",
    },
    Room {
        name: "upgrade",
        may: &["client", "state"],
        why: "copies bytes between two connections",
    },
    Room {
        name: "client",
        may: &["state", "headers", "interim"],
        why: "a client connection as a request sees it",
    },
    Room {
        name: "body/response",
        may: &["body", "upstream", "coalesce"],
        why: "reads what upstream and coalescer yield",
    },
    Room {
        name: "state",
        may: &[
            "upstream", "guard", "coalesce", "headers", "settings", "clock", "matcher", "passed",
            "uses",
        ],
        why: "the state of the process, made of parts that do not know it",
    },
    Room {
        name: "interim",
        may: &["upstream", "mesh"],
        why: "1xx responses between the upstream and a client",
    },
    Room {
        name: "settings",
        may: &["mesh", "upstream"],
        why: "plain values for the whole data path",
    },
    Room {
        name: "upstream",
        may: &["guard", "body", "headers", "framing", "error", "clock"],
        why: "sends requests; knows neither clients nor what is stored",
    },
    Room {
        name: "guard",
        may: &["error", "clock", "grpc"],
        why: "decides which requests are sent; sends nothing",
    },
    Room {
        name: "coalesce",
        may: &["error", "sync"],
        why: "needs little, since tests/model compiles it a second time",
    },
    Room { name: "grpc", may: &[], why: "a few values of gRPC" },
    Room { name: "matcher", may: &[], why: "what a URL names in the purge log, under a policy" },
    Room { name: "passed", may: &[], why: "which keys are passed on; knows no request" },
    Room { name: "uses", may: &[], why: "how often keys are asked for; knows no request" },
    Room { name: "body", may: &["headers"], why: "request bodies, which upstream sends" },
    Room { name: "headers", may: &["mesh"], why: "header fields that a proxy writes" },
    Room { name: "framing", may: &["refusal"], why: "lengths and transfer codings of messages" },
    Room { name: "max_forwards", may: &[], why: "counts the hops of TRACE and OPTIONS" },
    Room { name: "mesh", may: &["refusal"], why: "what Envoy says about a request" },
    Room { name: "refusal", may: &[], why: "a value that mesh and pipeline return" },
    Room { name: "error", may: &[], why: "a value: why the upstream gave no response" },
    Room { name: "clock", may: &[], why: "the only reader of the system's clock" },
    Room { name: "sync", may: &[], why: "the primitives that tests/model replaces" },
];

/// The modules of the root package, from the top down.
const ROOT: &[Room] = &[
    Room { name: "cli", may: &["app", "istio"], why: "reads the command line and calls the rest" },
    Room { name: "app", may: &["admin", "http_api"], why: "puts a process together and runs it" },
    Room {
        name: "admin",
        may: &["http_api"],
        why: "answers on the admin port; is given what it shows, and reads no configuration",
    },
    Room { name: "http_api", may: &[], why: "limits that every HTTP API of the process shares" },
    Room { name: "istio", may: &[], why: "renders Istio objects from values" },
];

/// Circles that still exist, each as the beginnings of the names of its files. None may be added.
const KNOWN_CIRCLES: &[&[&str]] = &[];

/// Imports between modules that the tables do not allow and that still exist.
const KNOWN_IMPORTS: &[(&str, &str)] = &[];

/// The crates whose files are looked at, relative to the workspace.
const CRATES: [&str; 12] = [
    "src",
    "src/semantics",
    "src/guard",
    "src/policy",
    "src/control",
    "src/redis",
    "src/store",
    "src/coherence",
    "src/telemetry",
    "src/inject",
    "src/proxy",
    "src/diagnostic",
];

fn sources(folder: &str) -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The root package lies around the others.
    let inner = CRATES.iter().filter_map(|other| other.strip_prefix(&format!("{folder}/")));
    Sources::read(&root.join(folder), &inner.collect::<Vec<_>>())
}

/// The room that a file belongs to; `None` for the root file of the crate.
fn room_of<'a>(rooms: &'a [Room], file: &str) -> Option<&'a Room> {
    let holds = |room: &&Room| match file.strip_prefix(room.name) {
        Some(rest) => rest == ".rs" || rest.starts_with('/'),
        None => false,
    };
    rooms.iter().filter(holds).max_by_key(|room| room.name.len())
}

fn check_rooms(folder: &str, rooms: &[Room]) -> BTreeSet<(&'static str, &'static str)> {
    for (at, room) in rooms.iter().enumerate() {
        assert!(!room.why.is_empty(), "{} says why it may import what it imports", room.name);
        for below in room.may {
            let found = rooms[at + 1..].iter().any(|other| other.name == *below);
            assert!(found, "{}: {} may import {below}, which is not below it", folder, room.name);
        }
    }
    let sources = sources(folder);
    let mut forbidden: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (file, targets) in &sources.edges() {
        if ["lib.rs", "main.rs"].contains(file) {
            continue;
        }
        let from = room_of(rooms, file);
        let from =
            from.unwrap_or_else(|| panic!("{folder}/{file} belongs to no room of the table"));
        for target in targets.iter().filter(|target| **target != "lib.rs") {
            let to = room_of(rooms, target).expect("a file with a room");
            if from.name != to.name && !from.may.contains(&to.name) {
                let arrow = format!("{folder}/{file} -> {folder}/{target}");
                forbidden.entry((from.name, to.name)).or_default().push(arrow);
            }
        }
    }
    let unknown: Vec<&String> = forbidden
        .iter()
        .filter(|(pair, _)| !KNOWN_IMPORTS.contains(pair))
        .flat_map(|(_, arrows)| arrows)
        .collect();
    assert!(unknown.is_empty(), "imports that the table does not allow:\n{unknown:#?}");
    forbidden.into_keys().collect()
}

#[test]
fn modules_import_only_what_they_may() {
    let mut met = check_rooms("src/proxy", PROXY);
    met.extend(check_rooms("src", ROOT));
    for known in KNOWN_IMPORTS {
        assert!(met.contains(known), "{known:?} is gone: take it out of KNOWN_IMPORTS");
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut met = BTreeSet::new();
    let mut unknown = Vec::new();
    for folder in CRATES {
        if !Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).exists() {
            continue;
        }
        let sources = sources(folder);
        for circle in circles(&sources.edges()) {
            let circle: Vec<String> =
                circle.iter().map(|file| format!("{folder}/{file}")).collect();
            let begins = |file: &String, group: &[&str]| {
                group.iter().any(|beginning| file.starts_with(beginning))
            };
            let known = KNOWN_CIRCLES
                .iter()
                .position(|group| circle.iter().all(|file| begins(file, group)));
            match known {
                Some(at) => _ = met.insert(at),
                None => unknown.push(circle.join(" -> ")),
            }
        }
    }
    assert!(unknown.is_empty(), "files that import each other:\n{}", unknown.join("\n"));
    for (at, group) in KNOWN_CIRCLES.iter().enumerate() {
        assert!(met.contains(&at), "{group:?} is gone: take it out of KNOWN_CIRCLES");
    }
}
