//! Peers written in Python, run in the environment that `tests/setup test` builds.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use outrigger_test_support::installed;
use serde_json::Value;

use super::Process;

/// A helper script that runs until dropped. It reports on standard output, one JSON object a line, the
/// first being `{"port": N}` once it listens.
pub(crate) struct PythonProgram {
    pub(crate) port: u16,
    _process: Process,
    events: Receiver<Value>,
    _folder: tempfile::TempDir,
}

impl PythonProgram {
    pub(crate) fn start(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, stdout) = Process::start_talking(script, &mut python(script), folder.path());
        let lines = BufReader::new(stdout).lines();
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let mut peer = Self { port: 0, _process: process, events, _folder: folder };
        let first = peer.event(Duration::from_secs(30)).expect("the peer starts");
        peer.port = first["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        peer
    }

    /// The next report, if one comes in time.
    pub(crate) fn event(&self, limit: Duration) -> Option<Value> {
        self.events.recv_timeout(limit).ok()
    }

    /// Runs a client script to its end; what it printed is its report.
    pub(crate) fn report(script: &str, arguments: &[&str]) -> Value {
        let output = python(script).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{script} failed: {}\n{text}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{script} printed no report: {error}\n{text}"))
    }
}

fn python(script: &str) -> Command {
    let mut command = Command::new(installed("venv/bin/python"));
    command
        .arg("-B")
        .arg("-u")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(script));
    // gRPC's and websockets' clients would otherwise go through a proxy that the machine sets.
    for name in ["http_proxy", "https_proxy", "all_proxy", "grpc_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}
