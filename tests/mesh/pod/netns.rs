//! Network namespaces of the test's own.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, deleted when dropped, and a thread that lives in it: a socket
/// belongs for good to the namespace of the thread that makes it.
pub struct Namespace {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new namespace, whose name carries the process id and a count.
    pub fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outrigger-{}-{count}-{what}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let (jobs, todo) = mpsc::channel::<Job>();
        let path = format!("/run/netns/{name}");
        let thread = std::thread::spawn(move || {
            let file = File::open(&path).expect("the namespace is there");
            setns(file, CloneFlags::CLONE_NEWNET).expect("the thread enters the namespace");
            for job in todo {
                job();
            }
        });
        let namespace = Self { name, jobs: Some(jobs), thread: Some(thread) };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on it.
    pub fn ip(&self, args: &[&str]) {
        run("ip", &[&["-n", self.name.as_str()], args].concat());
    }

    /// Loads iptables rules.
    pub fn iptables(&self, rules: &str) {
        let mut command = self.command("iptables-restore");
        let mut child = command.stdin(Stdio::piped()).spawn().expect("iptables-restore starts");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(rules.as_bytes()).expect("it reads");
        drop(stdin);
        let status = child.wait().expect("it ends");
        assert!(status.success(), "iptables-restore in {}: {status}", self.name);
    }

    /// A program that will run in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A handle that makes listening sockets in it.
    pub fn binder(&self) -> impl Fn(SocketAddr) -> io::Result<TcpListener> + use<> {
        let Connector(jobs) = self.connector();
        move |addr| within(&jobs, move || TcpListener::bind(addr))
    }

    /// A handle that makes connections from it.
    pub fn connector(&self) -> Connector {
        Connector(self.jobs.clone().expect("a namespace that lives"))
    }

    /// Listens in it.
    pub fn listen(&self, addr: &str) -> TcpListener {
        let addr = addr.parse().expect("an address");
        self.binder()(addr).unwrap_or_else(|e| panic!("{addr} in {}: {e}", self.name))
    }

    /// Connects from it.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.connector().connect(addr).await
    }
}

/// Makes connections from a namespace.
#[derive(Clone)]
pub struct Connector(mpsc::Sender<Job>);

impl Connector {
    /// Connects.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = within(&self.0, || Socket::new(Domain::IPV4, Type::STREAM, None))?;
        socket.set_nonblocking(true)?;
        tokio::net::TcpSocket::from_std_stream(socket.into()).connect(addr).await
    }
}

fn within<T: Send + 'static>(
    jobs: &mpsc::Sender<Job>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let job = Box::new(move || {
        // Fails when the one who asked is gone.
        let _ = done.send(work());
    });
    jobs.send(job).expect("the thread of the namespace lives");
    result.recv().expect("the thread of the namespace answers")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A binder may still hold the thread's queue; the namespace goes all the same.
        drop(self.jobs.take());
        drop(self.thread.take());
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Deletes the namespaces of runs that were killed: of processes that are gone.
pub fn sweep() {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix("outrigger-").and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists());
        if gone && pid.is_some_and(|pid| pid.parse::<u32>().is_ok()) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs a program that has to succeed.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: run `tests/setup test`"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{errors}", output.status);
}
