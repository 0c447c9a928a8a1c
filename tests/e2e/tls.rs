//! TLS towards the upstream: nginx with certificates from a private authority that openssl makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::Method;

use crate::support::{
    BELOW_DEFAULT_INTERVAL, Outrigger, PATIENCE, Process, Reply, free_port, get, outrigger,
    outrigger_refuses, request, tool, wait_until,
};

/// An authority that nobody else trusts, and the certificates it has issued.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Self { folder };
        let settings = "[req]\ndistinguished_name = name\nprompt = no\nx509_extensions = authority\n\
            [name]\nCN = Outrigger's test authority\n\
            [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
            subjectKeyIdentifier = hash\n";
        fs::write(authority.path("openssl.cnf"), settings).unwrap();
        authority.openssl("req -x509 -days 2 -keyout ca.key -out ca.pem");
        authority
    }

    /// Issues a certificate for alternative names such as `DNS:localhost`: `server.pem`, `server.key`.
    /// With no days it has expired a second later.
    fn issue(&self, names: &str, days: u32) {
        fs::write(self.path("names.cnf"), format!("subjectAltName = {names}\n")).unwrap();
        self.openssl("req -subj /CN=server -keyout server.key -out server.csr");
        self.openssl(&format!(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
             -extfile names.cnf -out server.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new(tool("openssl"));
        command.current_dir(self.folder.path()).args(arguments.split_whitespace());
        if arguments.starts_with("req") {
            let key = "-config openssl.cnf -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
            command.args(key.split(' '));
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }
}

/// An nginx that speaks TLS with its authority's certificate. It serves `/static/file` for a minute and
/// `/private/file` uncacheably, and tells how it was asked in `protocol`, `alpn`, `asked-for` (the name in
/// the handshake) and `connection-number`.
struct Nginx {
    process: Process,
    folder: tempfile::TempDir,
    authority: Authority,
    port: u16,
}

impl Nginx {
    /// With a certificate for `names`; `listen` may hold `http2`, `extra` is configuration.
    fn start(names: &str, listen: &str, extra: &str) -> Self {
        let authority = Authority::new();
        authority.issue(names, 2);
        Self::with_certificate_of(authority, listen, extra)
    }

    fn with_certificate_of(authority: Authority, listen: &str, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["static", "private"] {
            fs::create_dir_all(folder.path().join("root").join(name)).unwrap();
            fs::write(folder.path().join("root").join(name).join("file"), content()).unwrap();
        }
        let port = free_port();
        let text = configuration(folder.path(), &authority, port, listen, extra);
        fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let process = Self::spawn(folder.path());
        let nginx = Self { process, folder, authority, port };
        nginx.wait_until_up();
        nginx
    }

    fn http1(names: &str) -> Self {
        Self::start(names, "ssl", "")
    }

    fn http2(names: &str) -> Self {
        Self::start(names, "ssl http2", "")
    }

    fn spawn(folder: &Path) -> Process {
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-e").arg(folder.join("error.log"));
        Process::start("nginx", &mut command, folder)
    }

    fn wait_until_up(&self) {
        wait_until("nginx listens", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(self.folder.path());
        self.wait_until_up();
    }

    /// How many requests for this path have reached nginx.
    fn requests_for(&self, path: &str) -> usize {
        // nginx writes a request's line when it has sent the last byte, which may be after we have it.
        std::thread::sleep(Duration::from_millis(100));
        let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        log.lines().filter(|line| *line == path).count()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Outrigger in front, trusting this nginx's authority.
    fn trusted(&self, tls: &str) -> Outrigger {
        in_front_of(&self.url(), &self.authority.ca_file(), tls)
    }
}

fn configuration(
    folder: &Path,
    authority: &Authority,
    port: u16,
    listen: &str,
    extra: &str,
) -> String {
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    let (folder, certificate, key) = (folder.display(), certificate.display(), key.display());
    format!(
        r#"
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format paths '$request_uri';
    access_log {folder}/access.log paths;
    client_max_body_size 16m;
    map $uri $life {{ ~^/static/ "max-age=60"; default "no-store"; }}
    server {{
        listen 127.0.0.1:{port} {listen};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {folder}/root;
        add_header Cache-Control $life always;
        add_header Protocol $server_protocol always;
        add_header Alpn $ssl_alpn_protocol always;
        add_header Asked-For $ssl_server_name always;
        add_header Connection-Number $connection always;
        location /healthz {{ return 200; }}
        location /answer {{ return 200 "$request_method $content_length"; }}
        {extra}
    }}
}}
"#
    )
}

fn content() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(1 << 20).collect()
}

/// Outrigger in front of `url`, with one worker and so one pool of connections; `tls` holds further fields.
fn in_front_of(url: &str, ca_file: &Path, tls: &str) -> Outrigger {
    let ca_file = ca_file.display();
    run(&format!("url: \"{url}\", tls: {{caFile: \"{ca_file}\"{tls}}}"))
}

fn run(upstream: &str) -> Outrigger {
    Outrigger::run(&[], &format!("workers: 1\nupstream: {{{upstream}}}\n"))
}

#[track_caller]
fn assert_connect_failed(reply: &Reply) {
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(reply.cache_says("detail=connect-failed"), "{}", reply.cache_status());
    assert_eq!(&reply.body[..], b"upstream: connect-failed\n");
}

/// Fetches both files, several times each, and checks what came and how it was asked for.
#[track_caller]
fn assert_serves_and_caches(nginx: &Nginx, outrigger: &Outrigger, protocol: &str, alpn: &str) {
    for _ in 0..3 {
        let reply = get(&outrigger.url("/private/file"), &[]);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!((reply.header("protocol"), reply.header("alpn")), (protocol, alpn));
        assert!(!reply.is_hit(), "{}", reply.cache_status());
        assert!(reply.body == content(), "{reply:?}");
    }
    let miss = get(&outrigger.url("/static/file"), &[]);
    assert_eq!((miss.status, miss.header("protocol")), (200, protocol), "{miss:?}");
    assert!(miss.cache_says("stored"), "{}", miss.cache_status());
    for _ in 0..3 {
        let hit = get(&outrigger.url("/static/file"), &[]);
        assert!(hit.is_hit(), "{}", hit.cache_status());
        assert!(hit.body == content(), "{hit:?}");
    }
    assert_eq!(nginx.requests_for("/private/file"), 3);
    assert_eq!(nginx.requests_for("/static/file"), 1);
}

#[test]
fn an_upstream_that_offers_http2_is_spoken_to_in_http2() {
    let nginx = Nginx::http2("DNS:localhost");
    let outrigger = nginx.trusted("");
    assert_serves_and_caches(&nginx, &outrigger, "HTTP/2.0", "h2");
    let missing = get(&outrigger.url("/private/missing"), &[]);
    assert_eq!((missing.status, missing.header("protocol")), (404, "HTTP/2.0"));
}

#[test]
fn an_upstream_without_http2_is_spoken_to_in_http1() {
    let nginx = Nginx::http1("DNS:localhost");
    let outrigger = nginx.trusted("");
    assert_serves_and_caches(&nginx, &outrigger, "HTTP/1.1", "http/1.1");
}

#[test]
fn tls_connections_are_kept_between_requests() {
    for nginx in [Nginx::http1("DNS:localhost"), Nginx::http2("DNS:localhost")] {
        let outrigger = nginx.trusted("");
        let number = || {
            let reply = get(&outrigger.url("/private/file"), &[]);
            assert_eq!(reply.status, 200, "{reply:?}");
            reply.header("connection-number").to_owned()
        };
        let first = number();
        for _ in 0..5 {
            assert_eq!(number(), first);
        }
    }
}

#[test]
fn request_bodies_reach_a_tls_upstream() {
    for nginx in [Nginx::http1("DNS:localhost"), Nginx::http2("DNS:localhost")] {
        let outrigger = nginx.trusted("");
        for size in [1, 70_000, 3 << 20] {
            let reply = request(Method::POST, &outrigger.url("/answer"), &[], vec![b'x'; size]);
            assert_eq!(reply.status, 200, "{size}: {reply:?}");
            assert_eq!(reply.body, format!("POST {size}"));
        }
    }
}

#[test]
fn many_requests_at_once_over_http2() {
    let nginx = Nginx::http2("DNS:localhost");
    let outrigger = nginx.trusted("");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let reply = get(&outrigger.url("/private/file"), &[]);
                assert_eq!((reply.status, reply.header("protocol")), (200, "HTTP/2.0"));
                assert!(reply.body == content(), "{reply:?}");
            });
        }
    });
}

/// nginx ends a connection with GOAWAY after so many requests: those that come next need another one.
#[test]
fn an_http2_connection_that_the_upstream_retires_costs_no_request() {
    let nginx = Nginx::start("DNS:localhost", "ssl http2", "keepalive_requests 3;");
    let outrigger = nginx.trusted("");
    let mut connections = std::collections::HashSet::new();
    for round in 0..30 {
        let reply = get(&outrigger.url("/answer"), &[]);
        assert_eq!(reply.status, 200, "request {round}: {}", reply.cache_status());
        connections.insert(reply.header("connection-number").to_owned());
    }
    assert!((2..=30).contains(&connections.len()), "{connections:?}");
    for round in 0..30 {
        let reply = request(Method::POST, &outrigger.url("/answer"), &[], "body");
        assert_eq!(reply.status, 200, "POST {round}: {}", reply.cache_status());
    }
}

#[test]
fn an_upstream_that_restarts_is_connected_to_again() {
    for listen in ["ssl", "ssl http2"] {
        let mut nginx = Nginx::start("DNS:localhost", listen, "");
        let outrigger = nginx.trusted("");
        let url = outrigger.url("/private/file");
        assert_eq!(get(&url, &[]).status, 200);
        nginx.restart();
        let reply = get(&url, &[]);
        assert_eq!(reply.status, 200, "{listen}: {}", reply.cache_status());
        nginx.process.kill();
        assert_connect_failed(&get(&url, &[]));
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    for nginx in [Nginx::http1("DNS:other.example"), Nginx::http2("DNS:other.example")] {
        let outrigger = nginx.trusted("");
        for path in ["/private/file", "/static/file"] {
            assert_connect_failed(&get(&outrigger.url(path), &[]));
        }
        assert_connect_failed(&request(Method::POST, &outrigger.url("/answer"), &[], "body"));
        assert_eq!(nginx.requests_for("/private/file"), 0);
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    authority.issue("DNS:localhost", 0);
    let nginx = Nginx::with_certificate_of(authority, "ssl http2", "");
    let outrigger = nginx.trusted("");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_connect_failed(&get(&outrigger.url("/private/file"), &[]));
}

#[test]
fn an_unknown_authority_is_refused() {
    let nginx = Nginx::http2("DNS:localhost");
    let with_the_systems = run(&format!("url: \"{}\"", nginx.url()));
    assert_connect_failed(&get(&with_the_systems.url("/private/file"), &[]));
    let another = Authority::new();
    let with_anothers = in_front_of(&nginx.url(), &another.ca_file(), "");
    assert_connect_failed(&get(&with_anothers.url("/private/file"), &[]));
    assert_eq!(nginx.requests_for("/private/file"), 0);
}

#[test]
fn the_server_name_can_differ_from_the_urls() {
    let nginx = Nginx::http2("DNS:inner.example");
    let outrigger = nginx.trusted(", serverName: inner.example");
    let reply = get(&outrigger.url("/private/file"), &[]);
    assert_eq!((reply.status, reply.header("asked-for")), (200, "inner.example"), "{reply:?}");

    let nginx = Nginx::http2("DNS:localhost");
    let outrigger = nginx.trusted("");
    let reply = get(&outrigger.url("/private/file"), &[]);
    assert_eq!((reply.status, reply.header("asked-for")), (200, "localhost"), "{reply:?}");
    let outrigger = nginx.trusted(", serverName: inner.example");
    assert_connect_failed(&get(&outrigger.url("/private/file"), &[]));
}

#[test]
fn an_upstream_named_by_its_address() {
    let nginx = Nginx::http2("IP:127.0.0.1");
    let ca_file = nginx.authority.ca_file();
    let outrigger = in_front_of(&format!("https://127.0.0.1:{}", nginx.port), &ca_file, "");
    let reply = get(&outrigger.url("/private/file"), &[]);
    assert_eq!(reply.status, 200, "{}", reply.cache_status());
}

/// nginx listens on IPv4 only, so that this needs no IPv6; the certificate has to name `::1` all the same.
#[test]
fn an_upstream_named_by_its_ipv6_address() {
    let nginx = Nginx::http2("IP:::1");
    let (port, ca_file) = (nginx.port, nginx.authority.ca_file());
    for server_name in ["", ", serverName: \"::1\""] {
        let outrigger = run(&format!(
            "url: \"https://[::1]:{port}\", endpoints: [\"127.0.0.1:{port}\"], \
             tls: {{caFile: \"{}\"{server_name}}}",
            ca_file.display(),
        ));
        let reply = get(&outrigger.url("/private/file"), &[]);
        assert_eq!(reply.status, 200, "{{{server_name}}}: {}", reply.cache_status());
    }
}

#[test]
fn an_upstream_that_does_not_speak_tls_is_an_error() {
    let nginx = Nginx::start("DNS:localhost", "", "");
    let outrigger = nginx.trusted("");
    assert_connect_failed(&get(&outrigger.url("/private/file"), &[]));
}

/// Two endpoints with the same certificate, one port closed: the checks have to see that the other is well.
#[test]
fn health_checks_trust_the_configured_authority() {
    let nginx = Nginx::http2("DNS:localhost");
    let (open, closed, ca_file) = (nginx.port, free_port(), nginx.authority.ca_file());
    for path in ["path: /healthz, ", ""] {
        let outrigger = run(&format!(
            "url: \"{}\", endpoints: [\"127.0.0.1:{open}\", \"127.0.0.1:{closed}\"], \
             tls: {{caFile: \"{}\"}}, healthCheck: {{{path}intervalMs: 100, unhealthyAfter: 1}}",
            nginx.url(),
            ca_file.display(),
        ));
        let healthy = || outrigger.metric("outrigger_upstream_endpoints_healthy");
        wait_until("the closed port is found", BELOW_DEFAULT_INTERVAL, || healthy() < 2);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(healthy(), 1, "with {{{path}}}");
        for _ in 0..4 {
            assert_eq!(get(&outrigger.url("/private/file"), &[]).status, 200);
        }
    }
}

/// An endpoint that takes connections and says nothing: a handshake cannot end there.
#[test]
fn a_handshake_that_stalls_ends_at_its_limit() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let nginx = Nginx::http2("DNS:localhost");
    let ca_file = nginx.authority.ca_file();
    let settings = |endpoints: &str| {
        format!(
            "url: \"{}\", endpoints: [{endpoints}], tls: {{caFile: \"{}\"}}, \
             timeouts: {{connectMs: 200, tlsMs: 300}}",
            nginx.url(),
            ca_file.display(),
        )
    };
    let outrigger = run(&settings(&format!("\"{silent}\"")));
    let began = std::time::Instant::now();
    let reply = get(&outrigger.url("/private/file"), &[]);
    // The limits that hold when none are set would take three seconds.
    assert!(began.elapsed() < Duration::from_millis(2_900), "{:?}", began.elapsed());
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.cache_says("detail=connect-timeout"), "{}", reply.cache_status());

    let outrigger = run(&settings(&format!("\"{silent}\", \"127.0.0.1:{}\"", nginx.port)));
    for _ in 0..4 {
        let reply = get(&outrigger.url("/private/file"), &[]);
        assert_eq!(reply.status, 200, "{}", reply.cache_status());
    }
}

/// An origin for `h2c://` need not understand HTTP/1.1.
#[test]
fn health_checks_speak_the_upstreams_protocol() {
    let nginx = Nginx::start("DNS:localhost", "http2", "");
    let upstream = format!("url: \"h2c://127.0.0.1:{}\"", nginx.port);
    let check = "healthCheck: {path: /healthz, intervalMs: 100, unhealthyAfter: 1}";
    let outrigger = run(&format!("{upstream}, {check}"));
    assert_eq!(get(&outrigger.url("/private/file"), &[]).header("protocol"), "HTTP/2.0");
    wait_until("three checks", BELOW_DEFAULT_INTERVAL, || nginx.requests_for("/healthz") >= 3);
    assert_eq!(outrigger.metric("outrigger_upstream_endpoints_healthy"), 1);
}

/// The library that connects panics over them; an operator gets a line instead.
#[test]
fn unreadable_system_certificates_end_the_start_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk.pem");
    fs::write(&junk, "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n").unwrap();
    let mut command = outrigger();
    command.args(["run", "--upstream", "https://localhost:1"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env("SSL_CERT_FILE", junk).env_remove("SSL_CERT_DIR");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("SSL_CERT_FILE") && !said.contains("panicked"), "{said}");
}

#[track_caller]
fn assert_ca_file_refused(what: &str, path: &Path) {
    let path = path.display();
    let upstream = format!("url: \"https://localhost:1\", tls: {{caFile: \"{path}\"}}");
    let (code, said) = outrigger_refuses(&format!("upstream: {{{upstream}}}\n"));
    assert_eq!(code, Some(64), "{what}: {said}");
    assert!(said.contains("caFile") && said.contains(&path.to_string()), "{what}: {said}");
}

#[test]
fn a_ca_file_that_is_missing_or_holds_no_certificate_ends_the_start() {
    let authority = Authority::new();
    let text = authority.path("text.pem");
    fs::write(&text, "certificates, later\n").unwrap();
    let empty = authority.path("empty.pem");
    fs::write(&empty, "").unwrap();
    assert_ca_file_refused("missing", &authority.path("missing.pem"));
    assert_ca_file_refused("a folder", authority.folder.path());
    assert_ca_file_refused("empty", &empty);
    assert_ca_file_refused("not PEM", &text);
    assert_ca_file_refused("a key", &authority.path("ca.key"));
}

#[test]
fn a_ca_file_whose_certificates_cannot_be_read_ends_the_start() {
    let authority = Authority::new();
    let write = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let with_key =
        ["ca.pem", "ca.key"].map(|name| fs::read_to_string(authority.path(name)).unwrap());
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let cases = [
        ("a certificate and a key", write("both.pem", &with_key.concat())),
        ("not base64", write("letters.pem", &format!("{begin}\n%%%%\n{end}\n"))),
        ("not a certificate", write("junk.pem", &format!("{begin}\nAAECAwQF\n{end}\n"))),
        ("a marker within a line", write("within.pem", &format!("x{begin}\nAAEC\n{end}\n"))),
        ("cut off", write("cut.pem", &format!("{begin}\nAAECAwQF\n"))),
    ];
    for (what, path) in cases {
        assert_ca_file_refused(what, &path);
    }
}

#[test]
fn tls_settings_for_an_upstream_without_tls_are_refused() {
    let authority = Authority::new();
    let ca_file = authority.ca_file();
    let tls = format!("caFile: \"{}\"", ca_file.display());
    for tls in [tls.as_str(), "serverName: localhost"] {
        let config = format!("upstream: {{url: \"http://localhost:1\", tls: {{{tls}}}}}\n");
        let (code, said) = outrigger_refuses(&config);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("https"), "{said}");
    }
}
