//! Varnish: two probed backends in turns, a minute of grace, one retry.

use std::net::SocketAddr;
use std::process::Command;

use super::Server;
use crate::origin::Origin;
use crate::scenario::Subject;
use crate::support::tool;

/// Varnish before an origin of its own.
pub fn varnish() -> Subject {
    let origin = Origin::start();
    let endpoints = origin.addrs();
    let server = Server::start(
        "varnish",
        |_, _| configuration(endpoints),
        |folder, file, addr| {
            let mut command = Command::new(tool("varnishd"));
            command.arg("-F").arg("-n").arg(folder.join("work")).arg("-a").arg(addr.to_string());
            command.arg("-f").arg(file).args(["-s", "malloc,64m", "-T", "none"]);
            command
        },
    );
    Subject {
        name: "Varnish",
        addr: server.addr,
        origin,
        fault: |mode| mode,
        _process: Box::new(server),
    }
}

fn configuration([a, b]: [SocketAddr; 2]) -> String {
    let backend = |name: &str, addr: SocketAddr| {
        format!(
            "\
backend {name} {{
    .host = \"{}\";
    .port = \"{}\";
    .connect_timeout = 0.5s;
    .first_byte_timeout = 1s;
    .between_bytes_timeout = 1s;
    .probe = health;
}}
",
            addr.ip(),
            addr.port()
        )
    };
    [HEAD, &backend("a", a), &backend("b", b), RULES].concat()
}

const HEAD: &str = "\
vcl 4.1;
import directors;
probe health {
    .url = \"/probe\";
    .interval = 500ms;
    .timeout = 1s;
    .window = 3;
    .threshold = 2;
    .initial = 2;
}
";

/// A refresh that fails leaves the copy that it was to replace.
const RULES: &str = "\
sub vcl_init {
    new shop = directors.round_robin();
    shop.add_backend(a);
    shop.add_backend(b);
}
sub vcl_recv {
    set req.backend_hint = shop.backend();
}
sub vcl_backend_response {
    if (beresp.status == 502 || beresp.status == 503 || beresp.status == 504) {
        if (bereq.retries < 1 && bereq.method == \"GET\") {
            return (retry);
        }
        if (bereq.is_bgfetch) {
            return (abandon);
        }
    }
    set beresp.grace = 60s;
}
sub vcl_backend_error {
    if (bereq.retries < 1 && bereq.method == \"GET\") {
        return (retry);
    }
    if (bereq.is_bgfetch) {
        return (abandon);
    }
}
";
