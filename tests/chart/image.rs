//! The Dockerfile keeps the contract of the image, as far as its text can tell.

use std::fs;

use crate::helm::{documents, repository};

/// Instructions of a Dockerfile: name and arguments, lines that go on joined.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository("Dockerfile")).unwrap();
    let mut joined = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(begun) => joined.push_str(begun),
            None => joined.push_str(&format!("{line}\n")),
        }
    }
    let split = |line: &str| {
        let (name, rest) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    joined.lines().filter_map(split).collect()
}

/// The stages: what each begins with, and its other instructions.
fn stages() -> Vec<(String, Vec<(String, String)>)> {
    let mut stages: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for (name, arguments) in instructions() {
        match name.as_str() {
            "FROM" => stages.push((arguments, Vec::new())),
            _ => stages.last_mut().expect("FROM comes first").1.push((name, arguments)),
        }
    }
    stages
}

fn all<'a>(stage: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    stage.iter().filter(|(n, _)| n == name).map(|(_, arguments)| arguments.as_str()).collect()
}

#[test]
fn the_image_runs_as_its_own_user_and_starts_the_binary() {
    let stages = stages();
    let (base, last) = stages.last().unwrap();
    assert_eq!(base, "gcr.io/distroless/cc-debian12:nonroot");
    assert_eq!(all(last, "USER"), ["15480:15480"]);
    assert_eq!(all(last, "ENTRYPOINT"), [r#"["/usr/local/bin/outrigger"]"#]);
    assert_eq!(all(last, "CMD"), [r#"["run"]"#]);
    assert_eq!(all(last, "EXPOSE"), ["15480 15481 15490 15491"]);
    assert_eq!(all(last, "HEALTHCHECK"), ["NONE"]);
    assert_eq!(all(last, "STOPSIGNAL"), ["SIGTERM"]);
    assert!(all(last, "RUN").is_empty(), "there is no shell to run anything");
    let labels = all(last, "LABEL").join(" ");
    for label in ["title", "description", "licenses"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{labels}");
    }
}

#[test]
fn what_is_copied_is_made_before() {
    let stages = stages();
    let [(build, steps), (_, last)] = stages.as_slice() else { panic!("two stages") };
    assert!(build.ends_with(" AS build"), "{build}");
    let run = all(steps, "RUN").join("\n");
    let copies = all(last, "COPY");
    assert_eq!(copies.len(), 3, "{copies:?}");
    for copy in copies {
        let words: Vec<&str> = copy.split(' ').collect();
        let [flags @ .., from, to] = words.as_slice() else { panic!("{copy}") };
        assert!(flags.contains(&"--from=build"), "{copy}");
        assert!(run.contains(from), "{from} is not made");
        assert_eq!(from.strip_prefix("/image").unwrap(), *to);
        // The binary belongs to root, so that the process cannot change it.
        assert_eq!(flags.contains(&"--chown=15480:15480"), !to.starts_with("/usr/"), "{copy}");
    }
    assert!(run.contains("cargo build --release --locked --bin outrigger"));
    assert!(!run.contains("apt-get"), "the base image has all that the build needs: {run}");
}

#[test]
fn compiler_and_libraries_fit() {
    let manifest = fs::read_to_string(repository("Cargo.toml")).unwrap();
    let wanted = manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).unwrap();
    let stages = stages();
    // Debian 12 is bookworm: the C library of the builder is the one that the binary finds.
    assert_eq!(stages[0].0, format!("rust:{}-bookworm AS build", wanted.trim_matches('"')));
    assert!(stages[1].0.contains("debian12"));
}

#[test]
fn the_build_gets_what_cargo_reads() {
    let ignored = fs::read_to_string(repository(".dockerignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().filter(|l| !l.starts_with('#')).collect();
    for needed in ["Cargo.toml", "Cargo.lock", "src", "tests", "examples"] {
        for form in [needed.to_owned(), format!("/{needed}"), format!("**/{needed}")] {
            assert!(!ignored.contains(&form.as_str()), "{form}");
        }
    }
    for large in ["/target", "/.git"] {
        assert!(ignored.contains(&large), "{large}");
    }
}

#[test]
fn the_chart_is_of_this_version_and_documents_the_image() {
    let text = fs::read_to_string(repository("charts/outrigger/Chart.yaml")).unwrap();
    let [chart] = documents(&text).try_into().unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["apiVersion"], "v2");
    let readme = fs::read_to_string(repository("charts/outrigger/README.md")).unwrap();
    let image = readme.split_once("\n## The image\n").unwrap().1;
    for said in [
        "15480",
        "15481",
        "15490",
        "15491",
        "/usr/local/bin/outrigger",
        "SIGTERM",
        "/var/lib/outrigger",
    ] {
        assert!(image.contains(said), "{said}");
    }
}
