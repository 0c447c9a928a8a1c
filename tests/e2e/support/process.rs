//! Child processes behind guards, free ports, and Outrigger itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use outrigger_test_support::{PATIENCE, free_addr, outrigger, resident_bytes, send_signal};

use super::{get, wait_until};

/// A running program: killed and reaped when dropped, its log shown when the test has failed.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to a log file in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let (log, file) = log_file(name, folder);
        command.stdout(file.try_clone().unwrap());
        Self::spawn(name, command, log, file)
    }

    /// Starts `command`; its standard output is returned.
    pub(crate) fn start_talking(
        name: &str,
        command: &mut Command,
        folder: &Path,
    ) -> (Self, ChildStdout) {
        let (log, file) = log_file(name, folder);
        let mut process = Self::spawn(name, command.stdout(Stdio::piped()), log, file);
        let stdout = process.child.stdout.take().expect("standard output is piped");
        (process, stdout)
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf, stderr: File) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self, limit: Duration) -> ExitStatus {
        send_signal(self.child.id(), "TERM");
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {limit:?} of SIGTERM",
                self.name
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(name: &str, folder: &Path) -> (PathBuf, File) {
    let path = folder.join(format!("{name}.log"));
    let file = File::options().create(true).append(true).open(&path).unwrap();
    (path, file)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let tail = log.len().saturating_sub(8 * 1024);
            eprintln!("--- {}'s log\n{}---", self.name, String::from_utf8_lossy(&log[tail..]));
        }
    }
}

/// The binary under test, ready to serve.
pub(crate) struct Outrigger {
    pub(crate) process: Process,
    /// `127.0.0.1:PORT` of the listener.
    pub(crate) address: String,
    pub(crate) admin: String,
    _folder: tempfile::TempDir,
}

impl Outrigger {
    /// `outrigger run` in front of `upstream`.
    pub(crate) fn in_front_of(upstream: &str) -> Self {
        Self::run(&["--upstream", upstream], "")
    }

    /// `outrigger run` with flags, and with a bootstrap file unless `config` is empty. Listener and admin
    /// addresses are chosen here.
    pub(crate) fn run(flags: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_addr().to_string();
        let admin = free_addr().to_string();
        let mut command = outrigger();
        command.args(["run", "--listen", &address, "--admin", &admin]).args(flags);
        if !config.is_empty() {
            let file = folder.path().join("outrigger.yaml");
            std::fs::write(&file, config).unwrap();
            command.arg("--config").arg(file);
        }
        let process = Process::start("outrigger", &mut command, folder.path());
        let mut outrigger = Self { process, address, admin, _folder: folder };
        outrigger.wait_until_ready();
        outrigger
    }

    fn wait_until_ready(&mut self) {
        let readiness = format!("http://{}/readyz", self.admin);
        wait_until("outrigger is ready", PATIENCE, || {
            if let Some(status) = self.process.exited() {
                panic!("outrigger ended at start: {status}");
            }
            super::http::try_request(::http::Method::GET, &readiness, &[], "")
                .is_ok_and(|r| r.status == 200)
        });
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = get(&format!("http://{}/metrics", self.admin), &[]).body;
        let page = String::from_utf8(page.into()).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }
}

/// `outrigger run` with a bootstrap file that it refuses: its exit code and what it said.
pub(crate) fn outrigger_refuses(config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrigger.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = outrigger();
    command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]);
    let mut process = Process::start("outrigger", command.arg(file), folder.path());
    let mut status = None;
    wait_until("outrigger refuses its bootstrap file", PATIENCE, || {
        status = process.exited();
        status.is_some()
    });
    let said = std::fs::read_to_string(folder.path().join("outrigger.log")).unwrap();
    (status.and_then(|status| status.code()), said)
}
