//! The real binary as a child process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::binary::outrigger;
use super::client::{Client, fetch};
use super::gate::PATIENCE;
use super::machine::{free_addr, resident_bytes, send_signal};
use super::origin::Origin;
use super::response::Response;

/// What a proxy starts with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    upstream: String,
    policy: Option<String>,
    policy_file: Option<PathBuf>,
    upstream_extra: String,
    config: String,
    listeners: usize,
    /// Of each listener, in their order.
    modes: Vec<&'static str>,
    envs: Vec<(String, String)>,
    unix: bool,
    args: Vec<String>,
}

impl Setup {
    /// A proxy in front of this upstream URL.
    pub fn upstream(url: impl Into<String>) -> Self {
        Self { upstream: url.into(), listeners: 1, ..Self::default() }
    }

    /// A proxy in front of this origin.
    pub fn of(origin: &Origin) -> Self {
        Self::upstream(origin.url())
    }

    /// A proxy to which Envoy sends requests: inbound or outbound. It belongs to a pod with these
    /// addresses, and has no other upstream than what Envoy names.
    pub fn mesh(mode: &'static str, pod_addresses: &str) -> Self {
        let config = "workers: 2\n".to_owned();
        let setup = Self { listeners: 1, modes: vec![mode], config, ..Self::default() };
        setup.env("INSTANCE_IP", pod_addresses)
    }

    /// Both sides of a pod: the first listener is inbound, the second outbound.
    pub fn mesh_both(pod_addresses: &str) -> Self {
        let mut setup = Self::mesh("inbound", pod_addresses);
        setup.modes.push("outbound");
        setup.listeners(2)
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this policy document.
    pub fn policy(mut self, yaml: &str) -> Self {
        self.policy = Some(yaml.to_owned());
        self
    }

    /// With a policy file that the test owns.
    pub fn policy_file(mut self, path: &Path) -> Self {
        self.policy_file = Some(path.to_owned());
        self
    }

    /// With more top-level sections in the bootstrap file.
    pub fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml.trim_matches('\n'));
        self.config.push('\n');
        self
    }

    /// With one more line under `upstream:`.
    pub fn upstream_line(mut self, yaml: &str) -> Self {
        self.upstream_extra.push_str(&format!("  {yaml}\n"));
        self
    }

    /// With this many TCP listeners.
    pub fn listeners(mut self, n: usize) -> Self {
        self.listeners = n;
        self
    }

    /// With a Unix socket listener as well.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// With a flag and its value.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts it and waits until it is ready. A port that somebody else took in
    /// the meantime is no reason to fail: it is tried again with others.
    pub async fn start(&self) -> Proxy {
        for _ in 0..5 {
            let mut proxy = self.spawn();
            match proxy.becomes_ready().await {
                Ok(()) => return proxy,
                Err(why) if proxy.log().to_lowercase().contains("in use") => {
                    eprintln!("trying other ports: {why}");
                }
                Err(why) => panic!("{why}\n{}", proxy.log()),
            }
        }
        panic!("no free ports in five attempts");
    }

    fn spawn(&self) -> Proxy {
        let dir = TempDir::new().expect("a temporary folder");
        let addrs: Vec<_> = (0..self.listeners).map(|_| free_addr()).collect();
        let admin = free_addr();
        let unix = self.unix.then(|| dir.path().join("traffic.sock"));
        let policy = self.policy_file.clone().or_else(|| {
            let path = dir.path().join("policy.yaml");
            self.policy.as_ref().map(|yaml| {
                fs::write(&path, yaml).expect("the policy is written");
                path
            })
        });
        let mut command = outrigger();
        command.arg("run");
        if self.config.is_empty() && self.upstream_extra.is_empty() {
            self.by_flags(&mut command, &addrs, unix.as_deref(), admin, policy.as_deref());
        } else {
            let file = dir.path().join("outrigger.yaml");
            let yaml = self.bootstrap(&addrs, unix.as_deref(), admin, policy.as_deref());
            fs::write(&file, yaml).expect("the bootstrap is written");
            command.arg("--config").arg(file);
        }
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        let log = dir.path().join("stderr.log");
        let out = File::create(&log).expect("a log file");
        let both = out.try_clone().expect("a second handle");
        let child = command.stdout(both).stderr(out).spawn().expect("the binary starts");
        Proxy { child, addr: addrs[0], addrs, admin, unix, policy, log, _dir: dir }
    }

    fn by_flags(
        &self,
        command: &mut Command,
        addrs: &[SocketAddr],
        unix: Option<&Path>,
        admin: SocketAddr,
        policy: Option<&Path>,
    ) {
        for addr in addrs {
            command.arg("--listen").arg(addr.to_string());
        }
        if let Some(path) = unix {
            command.arg("--listen").arg(format!("unix:{}", path.display()));
        }
        command.arg("--upstream").arg(&self.upstream).arg("--admin").arg(admin.to_string());
        if let Some(path) = policy {
            command.arg("--policy").arg(path);
        }
    }

    fn bootstrap(
        &self,
        addrs: &[SocketAddr],
        unix: Option<&Path>,
        admin: SocketAddr,
        policy: Option<&Path>,
    ) -> String {
        let mut yaml = String::from("listeners:\n");
        for (at, addr) in addrs.iter().enumerate() {
            yaml.push_str(&format!("  - address: \"{addr}\"\n"));
            if let Some(mode) = self.modes.get(at) {
                yaml.push_str(&format!("    mode: {mode}\n"));
            }
        }
        if let Some(path) = unix {
            yaml.push_str(&format!("  - address: \"unix:{}\"\n", path.display()));
        }
        if !self.upstream.is_empty() || !self.upstream_extra.is_empty() {
            yaml.push_str("upstream:\n");
        }
        if !self.upstream.is_empty() {
            yaml.push_str(&format!("  url: \"{}\"\n", self.upstream));
        }
        yaml.push_str(&self.upstream_extra);
        yaml.push_str(&format!("admin:\n  address: \"{admin}\"\n"));
        if let Some(path) = policy {
            yaml.push_str(&format!("policy:\n  file: {}\n", path.display()));
        }
        yaml.push_str(&self.config);
        yaml
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code; `None` when a signal killed it.
    pub code: Option<i32>,
    /// What it wrote to stdout and stderr.
    pub output: String,
}

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    /// The first TCP listener.
    pub addr: SocketAddr,
    /// All TCP listeners, in the order of the setup.
    pub addrs: Vec<SocketAddr>,
    /// The address of the admin port.
    pub admin: SocketAddr,
    /// The Unix listener, if the setup asked for one.
    pub unix: Option<PathBuf>,
    /// The policy file, if there is one.
    pub policy: Option<PathBuf>,
    log: PathBuf,
    _dir: TempDir,
}

impl Proxy {
    /// Starts in front of an origin, configured by flags alone.
    pub async fn start(origin: &Origin) -> Self {
        Setup::of(origin).start().await
    }

    async fn becomes_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the proxy ended before it was ready: {status}"));
            }
            if self.is_ready().await == Some(true) {
                // Another process may have taken the port, and may be the one that answers.
                match self.child.try_wait() {
                    Ok(Some(status)) => return Err(format!("the proxy ended: {status}")),
                    _ => return Ok(()),
                }
            }
            if Instant::now() > deadline {
                return Err(format!("not ready after {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What `/readyz` says; `None` when the admin port does not answer.
    pub async fn is_ready(&self) -> Option<bool> {
        let mut client = Client::try_connect(self.admin).await.ok()?;
        client.request("GET", "/readyz", &[]).await;
        client.try_response("GET").await.ok().map(|response| response.status == 200)
    }

    /// A connection to the traffic port.
    pub async fn connect(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// A GET on the traffic port, on a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        fetch(self.addr, "GET", path, &[]).await
    }

    /// A request on the traffic port, on a connection of its own.
    pub async fn fetch(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        fetch(self.addr, method, path, headers).await
    }

    /// A GET on the admin port.
    pub async fn admin(&self, path: &str) -> Response {
        fetch(self.admin, "GET", path, &[]).await
    }

    /// A POST of JSON to `/purge`: what it answered, which must be a 200.
    pub async fn purge(&self, what: Value) -> Value {
        let response = self.try_purge(&what.to_string()).await;
        response.assert_status(200);
        serde_json::from_slice(&response.body).expect("JSON from /purge")
    }

    /// A POST of any text to `/purge`.
    pub async fn try_purge(&self, body: &str) -> Response {
        self.admin_post("/purge", body).await
    }

    /// A POST of JSON to the admin port.
    pub async fn admin_post(&self, path: &str, body: &str) -> Response {
        let mut client = Client::connect(self.admin).await;
        let length = body.len();
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        client.response("POST").await
    }

    /// The process id, for signals and `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// Waits until the process ends by itself.
    pub async fn wait_exit(&mut self) -> Exit {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            if let Some(status) = self.exited() {
                return Exit { code: status.code(), output: self.log() };
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be asked")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- the proxy's last log lines");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
