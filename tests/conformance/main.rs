//! The public HTTP cache test suite (npm package `http-cache-tests`), unchanged, against the real binary.
//!
//! `rfc_profile` runs it with the policy file written for the purpose, `defaults` without any policy.
//! The tests of kind "required" and "optimal" that do not pass are listed, with the reason, in
//! `expected-rfc.txt` and `expected-defaults.txt`; any other one that fails breaks the build, and a listed
//! one that passes is reported, so that its line can go. Tests of kind "check" are questions without a
//! right answer: they are counted, not compared.
//!
//! The suite comes from `$OUTRIGGER_TEST_CACHE` (default: `~/.cache/outrigger-tests`, filled by
//! `tests/setup test`) or is installed there. Judged results are left in `target/tmp/conformance-*.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_test_support::{free_addr, test_cache};
use serde_json::Value;

const PACKAGE: &str = "http-cache-tests";
const VERSION: &str = "0.4.5";
/// Far more than a run takes (about 20 s).
const RUN_LIMIT: Duration = Duration::from_secs(180);
const READY_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn rfc_profile() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies/rfc.yaml");
    assert!(policy.is_file(), "{} is missing", policy.display());
    let outcome = compare("rfc", Some(&policy), include_str!("expected-rfc.txt"));
    assert!(
        outcome.passed("required") >= 150,
        "only {} required tests pass",
        outcome.passed("required")
    );
    assert!(
        outcome.passed("optimal") >= 80,
        "only {} optimal tests pass",
        outcome.passed("optimal")
    );
}

#[test]
fn defaults() {
    compare("defaults", None, include_str!("expected-defaults.txt"));
}

/// Runs the suite and compares with the list. What fails unexpectedly gets one more run: the suite works
/// with pauses of three seconds against lifetimes of two, which a busy machine can stretch.
fn compare(name: &str, policy: Option<&Path>, list: &str) -> Outcome {
    // One run at a time in this process: each holds a hundred tests in flight as it is.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);

    let suite = install();
    let expected = parse_list(name, list);
    let mut outcome = run(name, policy, &suite);
    check_list(name, &expected, &outcome);
    if !outcome.unexpected(&expected).is_empty() {
        eprintln!(
            "{name}: failed unexpectedly, running once more:\n{}",
            outcome.describe(&expected)
        );
        outcome.merge(run(name, policy, &suite));
    }
    for id in expected.keys().filter(|id| outcome.is_pass(id)) {
        eprintln!("notice: {id} passes now: remove its line from expected-{name}.txt");
    }
    assert!(
        outcome.unexpected(&expected).is_empty(),
        "{name}: these tests fail and are not in expected-{name}.txt:\n{}",
        outcome.describe(&expected)
    );
    outcome
}

// ---- Expectations

/// Test id -> kind, of the lines `test-id  kind  # reason`.
fn parse_list(name: &str, text: &str) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("expected-{name}.txt, line {}", number + 1);
        let (entry, reason) = line.split_once('#').unwrap_or((line, ""));
        let words: Vec<&str> = entry.split_whitespace().collect();
        match words[..] {
            [] => {}
            [id, kind @ ("required" | "optimal")] => {
                assert!(!reason.trim().is_empty(), "{place}: no reason given");
                assert!(
                    expected.insert(id.to_owned(), kind.to_owned()).is_none(),
                    "{place}: {id} again"
                );
            }
            _ => panic!("{place}: not `test-id  required|optimal  # reason`"),
        }
    }
    expected
}

fn check_list(name: &str, expected: &BTreeMap<String, String>, outcome: &Outcome) {
    for (id, kind) in expected {
        let actual = outcome.kind(id);
        assert_eq!(actual, Some(kind.as_str()), "expected-{name}.txt: the kind of {id}");
    }
}

// ---- Results

/// What `run.mjs` wrote.
struct Outcome(Value);

impl Outcome {
    fn kind(&self, id: &str) -> Option<&str> {
        self.0["kinds"][id].as_str()
    }

    fn is_pass(&self, id: &str) -> bool {
        self.0["tests"][id] == "pass"
    }

    /// The number of tests of this kind that pass.
    fn passed(&self, kind: &str) -> usize {
        self.of_kind(&[kind]).filter(|id| self.is_pass(id)).count()
    }

    fn of_kind<'a>(&'a self, kinds: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let all = self.0["kinds"].as_object().expect("kinds").iter();
        all.filter(|(_, kind)| kind.as_str().is_some_and(|kind| kinds.contains(&kind)))
            .map(|(id, _)| id.as_str())
    }

    fn unexpected(&self, expected: &BTreeMap<String, String>) -> BTreeSet<&str> {
        self.of_kind(&["required", "optimal"])
            .filter(|id| !self.is_pass(id) && !expected.contains_key(*id))
            .collect()
    }

    fn describe(&self, expected: &BTreeMap<String, String>) -> String {
        let lines = self.unexpected(expected).into_iter().map(|id| {
            let text = |table: &str| self.0[table][id].as_str().unwrap_or_default().to_owned();
            format!("  {id}  {}  {}  {}", text("kinds"), text("tests"), text("details"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Takes over what passed in another run.
    fn merge(&mut self, other: Self) {
        for (id, result) in other.0["tests"].as_object().expect("tests") {
            if result == "pass" {
                self.0["tests"][id] = result.clone();
            }
        }
    }
}

// ---- One run

/// Starts a fresh Outrigger and has `run.mjs` run the suite's origin and client around it.
fn run(name: &str, policy: Option<&Path>, suite: &Path) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let (origin, listen, admin) = (free_addr(), free_addr(), free_addr());

    let mut outrigger = outrigger_test_support::outrigger();
    outrigger
        .args(["run", "--listen", &listen.to_string(), "--admin", &admin.to_string()])
        .args(["--upstream", &format!("http://{origin}")]);
    if let Some(policy) = policy {
        outrigger.arg("--policy").arg(policy);
    }
    let mut outrigger = Process::start("outrigger", &mut outrigger, folder.path());
    let ready = Instant::now() + READY_LIMIT;
    while !is_ready(admin) {
        assert!(!outrigger.has_ended(), "outrigger ended at once");
        assert!(Instant::now() < ready, "outrigger is not ready after {READY_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }

    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-{name}.json"));
    let _ = std::fs::remove_file(&results);
    let mut runner = Command::new("node");
    runner
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/run.mjs"))
        .arg("--suite")
        .arg(suite)
        .args([
            "--proxy-url",
            &format!("http://{listen}"),
            "--origin-port",
            &origin.port().to_string(),
        ])
        .arg("--out")
        .arg(&results)
        .args(["--timeout", &RUN_LIMIT.as_secs().to_string(), "--watch-stdin"])
        .stdin(Stdio::piped());
    let mut runner = Process::start("runner", &mut runner, folder.path());
    let end = Instant::now() + RUN_LIMIT + Duration::from_secs(30);
    while !runner.has_ended() {
        assert!(!outrigger.has_ended(), "outrigger ended during the run");
        assert!(Instant::now() < end, "the suite's runner hangs");
        std::thread::sleep(Duration::from_millis(50));
    }
    eprint!("{name}: {}", runner.log());
    assert!(!outrigger.has_ended(), "outrigger ended during the run");
    assert!(runner.child.wait().unwrap().success(), "the run did not complete");
    Outcome(serde_json::from_reader(File::open(&results).unwrap()).unwrap())
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A running program: killed and reaped when dropped, its log shown when the test has failed.
struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &'static str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap_or_else(
            |error| panic!("cannot start {name}: {error} (see `tests/setup test`)"),
        );
        Self { name, child, log }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(8 * 1024)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended already. The runner's own children end with it:
        // they watch their standard input.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}'s log\n{}---", self.name, self.log());
        }
    }
}

// ---- The suite

/// The folder the suite is installed in, installing it first where that is not done yet.
fn install() -> PathBuf {
    let cache = test_cache();
    std::fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join(".conformance.lock")).unwrap();
    lock.lock().unwrap();
    let suite = cache.join("node_modules").join(PACKAGE);
    if installed_version(&suite).as_deref() != Some(VERSION) {
        let status = Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--loglevel=error",
                "--prefix",
            ])
            .arg(&cache)
            .arg(format!("{PACKAGE}@{VERSION}"))
            .stdin(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("cannot start npm: {error} (see `tests/setup test`)"));
        assert!(status.success(), "npm could not install {PACKAGE}@{VERSION}: {status}");
        assert_eq!(installed_version(&suite).as_deref(), Some(VERSION), "after npm install");
    }
    suite
}

fn installed_version(suite: &Path) -> Option<String> {
    let text = std::fs::read(suite.join("package.json")).ok()?;
    let package: Value = serde_json::from_slice(&text).ok()?;
    suite.join("cli.mjs").is_file().then(|| package["version"].as_str().map(str::to_owned))?
}
