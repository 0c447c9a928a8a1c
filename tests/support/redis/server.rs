//! One `redis-server`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisResult, Value};
use tempfile::TempDir;
use tokio::time::Instant;

use super::tls::Authority;
use crate::gate::PATIENCE;
use crate::machine::{free_addr, send_signal, tool};

/// What a server starts with.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    lines: Vec<String>,
    password: Option<String>,
    tls: Option<Arc<Authority>>,
    by_socket: bool,
    sentinel: bool,
    cluster: bool,
}

impl Builder {
    /// `url()` names the Unix socket.
    pub fn unix(mut self) -> Self {
        self.by_socket = true;
        self
    }

    /// The default user needs this password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(&format!("requirepass {password}"))
    }

    /// A user as in an ACL file: `cart on >secret ~or:shop:* +get`.
    pub fn user(self, rules: &str) -> Self {
        self.line(&format!("user {rules}"))
    }

    /// TLS with an authority of its own; clients must show a certificate.
    pub fn tls(mut self) -> Self {
        self.tls = Some(Arc::new(Authority::new()));
        self
    }

    /// A memory limit such as `3mb`; writes beyond it are refused.
    pub fn maxmemory(self, limit: &str) -> Self {
        self.line(&format!("maxmemory {limit}")).line("maxmemory-policy noeviction")
    }

    /// Allows the `DEBUG` command, which servers refuse unless told otherwise.
    pub fn debug_command(self) -> Self {
        self.line("enable-debug-command yes")
    }

    /// A line of `redis.conf`.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// A sentinel instead of a server.
    pub(super) fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// A node of a cluster.
    pub(super) fn cluster(mut self) -> Self {
        self.cluster = true;
        self.line("cluster-enabled yes")
            .line("cluster-node-timeout 1000")
            .line("cluster-require-full-coverage no")
            .line("cluster-replica-validity-factor 0")
    }

    /// Starts it and waits until it answers.
    pub async fn start(self) -> RedisServer {
        for _ in 0..5 {
            let mut server = RedisServer::spawn(self.clone());
            match server.answers().await {
                Ok(()) => return server,
                Err(why) if server.log().contains("in use") => eprintln!("other ports: {why}"),
                Err(why) => panic!("{why}\n{}", server.log()),
            }
        }
        panic!("no free ports in five attempts");
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    options: Builder,
    addr: SocketAddr,
    dir: TempDir,
}

impl RedisServer {
    /// Starts a plain server on a free port.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A server with options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn spawn(options: Builder) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let addr = free_addr();
        let mut text = configuration(&options, addr, &dir);
        for line in &options.lines {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(dir.path().join("redis.conf"), text).expect("the configuration is written");
        let child = launch(&dir, options.sentinel);
        Self { child, options, addr, dir }
    }

    /// The TCP address at which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL to configure, without user and password.
    pub fn url(&self) -> String {
        if self.options.by_socket {
            return format!("unix:{}", self.socket().display());
        }
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.addr)
    }

    /// Its authority, if it speaks TLS.
    pub fn authority(&self) -> Option<&Authority> {
        self.options.tls.as_deref()
    }

    /// The process id, which a restart changes.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Stops the process where it stands (SIGSTOP): connections stay open and
    /// nothing answers.
    pub fn stop_process(&self) {
        self.signal("STOP");
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn continue_process(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        // Both fail only when the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew on the same port, empty; kills it first if it runs.
    pub async fn restart(&mut self) {
        self.kill();
        // The port may be taken for an instant by somebody who looks for one.
        for _ in 0..20 {
            self.child = launch(&self.dir, self.options.sentinel);
            if self.answers().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("redis-server does not start again:\n{}", self.log());
    }

    /// A command as the default user: its answer as text, members of an array
    /// on lines of their own, an error beginning with `(error)`.
    pub async fn cli(&self, words: &[&str]) -> String {
        match self.ask(words).await {
            Ok(value) => text_of(&value),
            Err(error) => format!("(error) {error}"),
        }
    }

    /// A command as the default user, with arguments of any bytes.
    pub async fn ask(&self, words: &[impl AsRef<[u8]>]) -> RedisResult<Value> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        command.query_async(&mut self.connection().await?).await
    }

    /// The bytes of a string value.
    pub async fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        match self.ask(&["GET", key]).await {
            Ok(Value::BulkString(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The keys that match a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let text = self.cli(&["KEYS", pattern]).await;
        assert!(!text.starts_with("(error)"), "{text}");
        let mut keys: Vec<_> = text.lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    /// A connection as the default user, over the Unix socket.
    pub async fn connection(&self) -> RedisResult<redis::aio::MultiplexedConnection> {
        let mut url = format!("unix://{}", self.socket().display());
        if let Some(password) = &self.options.password {
            url.push_str(&format!("?pass={password}"));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn answers(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.cli(&["PING"]).await != "PONG" {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("redis-server ended: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("redis-server does not answer after {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configuration(options: &Builder, addr: SocketAddr, dir: &TempDir) -> String {
    let (port, folder) = (addr.port(), dir.path().display());
    let mut text = format!(
        "bind 127.0.0.1\nprotected-mode no\ndir {folder}\nunixsocket {folder}/redis.sock\n\
         daemonize no\nloglevel notice\n"
    );
    if !options.sentinel {
        text.push_str("save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n");
    }
    if options.cluster {
        text.push_str(&format!("cluster-port {}\n", free_addr().port()));
    }
    match &options.tls {
        Some(authority) => text.push_str(&format!(
            "port 0\ntls-port {port}\ntls-auth-clients yes\ntls-ca-cert-file {}\n\
             tls-cert-file {}\ntls-key-file {}\n",
            authority.path("ca.pem").display(),
            authority.path("server.pem").display(),
            authority.path("server.key").display()
        )),
        None => text.push_str(&format!("port {port}\n")),
    }
    text
}

fn launch(dir: &TempDir, sentinel: bool) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join("redis.log"));
    let log = log.expect("a log file");
    let mut command = Command::new(tool("redis-server"));
    command.arg(dir.path().join("redis.conf"));
    if sentinel {
        command.arg("--sentinel");
    }
    let errors = log.try_clone().expect("a second handle");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().expect("redis-server starts")
}

/// A value as text.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Int(n) => n.to_string(),
        Value::Okay => String::from("OK"),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Array(values) | Value::Set(values) => {
            values.iter().map(text_of).collect::<Vec<_>>().join("\n")
        }
        other => format!("{other:?}"),
    }
}
