//! Processes in a namespace, under another user.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::netns::{Namespace, run};

/// A child process; killed when dropped, and by the kernel when the thread that
/// started it ends without that.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace as this user and group, with its output in
    /// a file of the folder.
    pub fn start(
        namespace: &Namespace,
        user: u32,
        folder: &Path,
        name: &str,
        program: &Path,
        args: &[String],
        environment: &[(&str, String)],
    ) -> Self {
        let mut command = namespace.command("setpriv");
        let user = user.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        Self::run(command, folder, name, program, args, environment)
    }

    /// Starts a program where the tests run, as their user.
    pub fn start_here(folder: &Path, name: &str, program: &Path, args: &[String]) -> Self {
        Self::run(Command::new("setpriv"), folder, name, program, args, &[])
    }

    /// Completes a command that ends in `setpriv`, and runs it.
    fn run(
        mut command: Command,
        folder: &Path,
        name: &str,
        program: &Path,
        args: &[String],
        environment: &[(&str, String)],
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        command.args(["--pdeathsig", "KILL", "--no-new-privs", "--"]);
        command.arg(program).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(environment.iter().map(|(k, v)| (k, v))).current_dir(folder);
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}: run `tests/setup test`"));
        Self { child, name: name.to_owned(), log }
    }

    /// Sends a signal, such as `STOP`. All wrappers have become the program by
    /// `exec`, so that the child is the program.
    pub fn signal(&self, signal: &str) {
        run("kill", &[&format!("-{signal}"), &self.child.id().to_string()]);
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, and lets others on this thread go on.
    pub async fn ended(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} still runs:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_none()
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- the last lines of {}", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A folder that every user may enter.
pub fn open_folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("its mode is set");
    folder
}

/// A program at a place where every user may run it; a home folder need not be
/// one.
pub fn in_reach(folder: &Path, name: &str, program: &Path) -> PathBuf {
    let place = folder.join(name);
    if !place.exists() && fs::hard_link(program, &place).is_err() {
        fs::copy(program, &place)
            .unwrap_or_else(|e| panic!("{}: {e}: run `tests/setup test`", program.display()));
    }
    place
}
