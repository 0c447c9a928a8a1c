//! The command line: what it says, and the codes it ends with.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Origin, PATIENCE, Setup, free_addr, outrigger};

/// Runs the binary to its end; killed when it does not come to one.
fn run(args: &[&str]) -> Output {
    let mut child =
        outrigger().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running: outrigger {}: {:?}", args.join(" "), child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Ends with this code and says one line on stderr that contains all of these.
fn assert_fails(args: &[&str], code: i32, says: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let line = lines.iter().find(|line| says.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{args:?}: no line has all of {says:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stderr.contains("stack backtrace"), "{stderr}");
}

#[test]
fn a_port_in_use_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, admin) = (taken.local_addr().unwrap().to_string(), free_addr().to_string());
    let upstream = ["--upstream", "http://127.0.0.1:9"];
    let args = ["run", "--listen", &addr, "--admin", &admin, upstream[0], upstream[1]];
    assert_fails(&args, 1, &[&addr]);
    let args = ["run", "--listen", &admin, "--admin", &addr, upstream[0], upstream[1]];
    assert_fails(&args, 1, &[&addr]);
}

#[test]
fn a_port_that_another_proxy_uses_is_exit_code_1() {
    // Sockets shared by SO_REUSEPORT among threads must not be shared with a
    // stranger.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_origin, proxy) = runtime.block_on(async {
        let origin = Origin::start().await;
        let proxy = Setup::of(&origin).config("workers: 2").start().await;
        (origin, proxy)
    });
    let (addr, admin) = (proxy.addr.to_string(), free_addr().to_string());
    let args = ["run", "--listen", &addr, "--admin", &admin, "--upstream", "http://127.0.0.1:9"];
    assert_fails(&args, 1, &[&addr]);
}

#[test]
fn a_bad_configuration_is_exit_code_64_with_file_and_line() {
    let dir = TempDir::new().unwrap();
    let rest = format!(
        "upstream: {{url: \"http://127.0.0.1:9\"}}\nadmin: {{address: \"{}\"}}\n",
        free_addr()
    );
    for (name, text, line) in [
        ("unknown.yaml", "listeners:\n  - address: 127.0.0.1:0\nsurprise: true\n", 3),
        ("type.yaml", "listeners:\n  - address: 127.0.0.1:0\nworkers: many\n", 3),
        ("address.yaml", "listeners:\n  - address: nowhere\n", 2),
        ("syntax.yaml", "listeners:\n  - address: [127.0.0.1:0\n\n", 0),
    ] {
        let path = file(&dir, name, &format!("{text}{rest}"));
        let at = if line > 0 { format!("{name}:{line}") } else { format!("{name}:") };
        assert_fails(&["run", "--config", &path], 64, &[&at]);
        assert_fails(&["check", &path], 64, &[&at]);
    }
}

#[test]
fn a_bad_policy_is_exit_code_64_with_file_and_line() {
    let dir = TempDir::new().unwrap();
    let policy = "routes:\n  - name: a\n    match: {path: {prefix: /}}\n    cache:\n      tll: {default: 1s}\n";
    let path = file(&dir, "policy.yaml", policy);
    let (addr, admin) = (free_addr().to_string(), free_addr().to_string());
    let args = [
        "run",
        "--listen",
        &addr,
        "--admin",
        &admin,
        "--upstream",
        "http://127.0.0.1:9",
        "--policy",
        &path,
    ];
    assert_fails(&args, 64, &["policy.yaml:5", "tll"]);
}

#[test]
fn wrong_usage_is_exit_code_64() {
    for args in [
        &["run", "--no-such-flag"][..],
        &["frobnicate"],
        &["run", "--listen", "nonsense", "--upstream", "http://127.0.0.1:9"],
        &["run", "--upstream", "ftp://127.0.0.1:9"],
        &["run", "--upstream", "http://"],
        &["schema", "nonsense"],
        &["explain", "GET", "http://shop.test/"],
        &["check"],
        &["run", "--config", "/no/such/file.yaml"],
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(!stderr.trim().is_empty(), "{args:?} says nothing");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[test]
fn help_version_and_schemas_are_exit_code_0() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["version"],
        &["schema", "policy"],
        &["schema", "config"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(!output.stdout.is_empty(), "{args:?} says nothing");
        if args[0] == "schema" {
            let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(schema.is_object(), "{args:?}");
        }
    }
}

#[test]
fn check_accepts_good_files() {
    let dir = TempDir::new().unwrap();
    let policy = file(
        &dir,
        "policy.yaml",
        "routes:\n  - name: catalog\n    match: {hosts: [catalog.shop.svc], path: {prefix: /products}, methods: [GET, HEAD]}\n    \
         cache:\n      ttl: {default: 30s, max: 10m, status: {404: 5s}}\n      stale: {whileRevalidate: 30s, ifError: 10m}\n      \
         key: {query: {ignore: [utm_*], sort: true}, headers: [accept-language]}\n      partition: none\n",
    );
    let config = file(
        &dir,
        "outrigger.yaml",
        "listeners: [{address: \"127.0.0.1:15480\"}]\nupstream: {url: \"http://127.0.0.1:8080\"}\nadmin: {address: \"127.0.0.1:15490\"}\n",
    );
    let output = run(&["check", &policy, &config]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_soon_even_when_the_upstream_is_not_there() {
    let began = Instant::now();
    let proxy = Setup::upstream(format!("http://{}", free_addr())).start().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(proxy.is_ready().await, Some(true));
}
