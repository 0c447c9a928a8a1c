//! The proxies that Outrigger is compared with, each set up as well as its own
//! means allow: a second endpoint is tried once, stale copies are served, all
//! time-outs are equal.

mod envoy;
mod nginx;
mod varnish;

pub use envoy::envoy;
pub use nginx::{nginx, pass_through};
pub use varnish::varnish;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::free_addr;

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(3);

/// A running server with a folder of its own; it and its children are ended when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    folder: TempDir,
}

impl Server {
    /// Writes a configuration for a free address into a new folder, and starts what `command`
    /// makes of the two.
    fn start(
        name: &str,
        configuration: impl FnOnce(&Path, SocketAddr) -> String,
        command: impl FnOnce(&Path, &Path, SocketAddr) -> Command,
    ) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let addr = free_addr();
        // What Envoy takes for YAML by its name is only text for the others.
        let file = folder.path().join("conf.yaml");
        fs::write(&file, configuration(folder.path(), addr)).expect("the configuration is written");
        let log = File::create(folder.path().join("log")).expect("a log file");
        let child = command(folder.path(), &file, addr)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            // A group of its own, so that workers do not outlive their master.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let mut server = Self { child, addr, folder };
        server.wait_until_up(name);
        server
    }

    fn wait_until_up(&mut self, name: &str) {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.addr).is_err() {
            let ended = self.child.try_wait().expect("the child can be asked");
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "{name} does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str, whom: &str) {
        // Fails only when the process has ended by itself.
        let _ = Command::new("kill").args([name, "--", whom]).stderr(Stdio::null()).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id();
        self.signal("-TERM", &pid.to_string());
        let deadline = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal("-KILL", &format!("-{pid}"));
        let _ = self.child.wait();
    }
}
