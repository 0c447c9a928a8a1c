//! nginx's cache as a second opinion: the same cases, judged by what any cache can be asked for,
//! which is whether the upstream is asked, and the status and content that come.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_test_support::{free_addr, tool};
use tempfile::TempDir;

use crate::case::{self, Version};
use crate::run::{Exchange, Ground, Server};

/// Runs a file's cases on nginx. Panics when what it does is not what the cases say of it.
pub async fn nginx(name: &str) {
    let file = case::read(name);
    if file.policy.is_some() {
        return;
    }
    let mut ground = Ground::prepare().await;
    let nginx = Nginx::start(ground.upstream.origin.addr, &ground.clock.environment());
    ground.clock.tidy(nginx.child.id());
    let server = Server { addr: nginx.addr, version: Version::Http1, proxy: None };
    let mut surprises = Vec::new();
    for case in file.cases.iter().filter(|case| case.peers()) {
        let differs = ground.run(server, name, case, judge).await;
        if differs != case.nginx {
            let (does, said) = (as_yaml(&differs), as_yaml(&case.nginx));
            surprises.push(format!("{name}.yaml: {}\n  nginx: {does}   # is {said}", case.name));
        }
    }
    assert!(
        surprises.is_empty(),
        "nginx does something else than the cases say of it:\n{}",
        surprises.join("\n")
    );
}

fn as_yaml(text: &Option<String>) -> String {
    text.as_ref().map_or_else(|| "~".to_owned(), |text| format!("{text:?}"))
}

fn judge(exchange: &Exchange<'_>) -> Option<String> {
    let Exchange { number, step, expected, got, saw, .. } = exchange;
    let what = match (step.asks(), saw.len()) {
        (true, 0) => Some("does not ask the upstream".to_owned()),
        (false, 1..) => Some("asks the upstream".to_owned()),
        (true, 2..) => Some("asks the upstream more than once".to_owned()),
        _ if got.status != expected.status => Some(format!("answers {}", got.status)),
        _ => expected.status_and_content(got).map(|_| "serves other content".to_owned()),
    };
    what.map(|what| format!("step {number}: {what}"))
}

/// nginx in front of an upstream; it ends when dropped.
struct Nginx {
    child: Child,
    addr: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    fn start(upstream: SocketAddr, environment: &[(String, String)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let addr = free_addr();
        let path = folder.path();
        let file = path.join("nginx.conf");
        fs::write(&file, configuration(&path.display().to_string(), addr, upstream))
            .expect("the configuration is written");
        let log = File::create(path.join("log")).expect("a log file");
        let child = Command::new(tool("nginx"))
            .arg("-p")
            .arg(path)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(path.join("error"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("nginx starts");
        let mut nginx = Self { child, addr, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(addr).is_err() {
            let ended = nginx.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // One process, which is killed; both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cache as its manual sets it up, with all that makes it closer to a cache by the RFC.
fn configuration(folder: &str, addr: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "\
daemon off;
master_process off;
user root;
pid {folder}/pid;
error_log {folder}/error crit;
env FAKETIME_TIMESTAMP_FILE;
env FAKETIME_NO_CACHE;
env FAKETIME_DONT_FAKE_MONOTONIC;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=shop:10m max_size=64m inactive=10d use_temp_path=off;
    server {{
        listen {addr};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_connect_timeout 5s;
            proxy_read_timeout 5s;
            proxy_next_upstream off;
            proxy_cache shop;
            proxy_cache_key $scheme$host$request_uri;
            proxy_cache_revalidate on;
            proxy_force_ranges on;
        }}
    }}
}}
"
    )
}
