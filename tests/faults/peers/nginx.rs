//! nginx: `proxy_cache` with stale answers, the next upstream on failure, and
//! passive ejection by `max_fails`; and nginx that caches nothing, as the control.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::Server;
use crate::origin::Origin;
use crate::rows::EndpointState;
use crate::scenario::Subject;
use crate::support::tool;

/// nginx before an origin of its own.
pub fn nginx() -> Subject {
    let origin = Origin::start();
    let server = start(origin.addrs(), CACHING);
    Subject {
        name: "nginx",
        addr: server.addr,
        origin,
        fault: |mode| mode,
        _process: Box::new(server),
    }
}

/// nginx as the control of an experiment: it passes everything on, with the time-outs and the one
/// more attempt that all have, to an upstream that is well or at most slow. What clients lose by it,
/// the machine has taken.
pub fn pass_through() -> Subject {
    let origin = Origin::start();
    let server = start(origin.addrs(), "");
    Subject {
        name: "pass-through",
        addr: server.addr,
        origin,
        fault: |mode| if mode == EndpointState::Slow { mode } else { EndpointState::Healthy },
        _process: Box::new(server),
    }
}

fn start(endpoints: [SocketAddr; 2], caching: &str) -> Server {
    Server::start(
        "nginx",
        |folder, addr| configuration(folder, addr, endpoints, caching),
        |folder, file, _| {
            let mut command = Command::new(tool("nginx"));
            command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg(folder.join("error"));
            command
        },
    )
}

/// What makes it a cache that serves stale copies.
const CACHING: &str = "
            proxy_cache shop;
            proxy_cache_lock on;
            proxy_cache_background_update on;
            proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;";

fn configuration(
    folder: &Path,
    addr: SocketAddr,
    [a, b]: [SocketAddr; 2],
    caching: &str,
) -> String {
    let folder = folder.display();
    format!(
        "\
daemon off;
worker_processes 1;
user root;
pid {folder}/pid;
error_log {folder}/error crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=shop:10m max_size=64m inactive=10m use_temp_path=off;
    upstream shop {{
        server {a} max_fails=5 fail_timeout=2s;
        server {b} max_fails=5 fail_timeout=2s;
        keepalive 64;
    }}
    server {{
        listen {addr};
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_connect_timeout 500ms;
            proxy_send_timeout 1s;
            proxy_read_timeout 1s;
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_next_upstream_tries 2;{caching}
        }}
    }}
}}
"
    )
}
