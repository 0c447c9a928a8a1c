//! nginx from Debian as an ordinary origin: static files with validators, compression, ranges, a big file.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::support::{
    Outrigger, PATIENCE, Process, Reply, free_port, get, request, tool, wait_until,
};

const BIG: usize = 64 << 20;

/// An nginx that serves a folder:
/// `/static/` may be cached for a minute, `/short/` for a second, `/private/` not at all, and `/plain/`
/// says nothing; `/text/` is compressed for those who ask.
struct Nginx {
    process: Process,
    folder: tempfile::TempDir,
    port: u16,
}

impl Nginx {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for name in ["static", "short", "private", "plain", "text"] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("alphabet.txt"), alphabet()).unwrap();
        }
        let port = free_port();
        fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), port)).unwrap();
        let process = Self::spawn(folder.path());
        let nginx = Self { process, folder, port };
        nginx.wait_until_up();
        nginx
    }

    fn spawn(folder: &Path) -> Process {
        let mut command = Command::new(tool("nginx"));
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .arg("-e")
            .arg(folder.join("error.log"));
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

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.folder.path().join("root").join(path), content).unwrap();
    }

    /// The requests for this path that have reached nginx so far, as `METHOD STATUS`.
    fn requests_for(&self, path: &str) -> Vec<String> {
        // nginx writes a request's line when it has sent the last byte, which may be after we have it.
        std::thread::sleep(Duration::from_millis(100));
        fs::read_to_string(self.folder.path().join("access.log"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|entry| entry["uri"] == path)
            .map(|entry| format!("{} {}", entry["method"].as_str().unwrap(), entry["status"]))
            .collect()
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
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
    log_format entries escape=json '{{"method":"$request_method","uri":"$request_uri","status":$status}}';
    access_log {folder}/access.log entries;
    sendfile on;
    types {{ text/plain txt; application/octet-stream bin; }}
    server {{
        listen 127.0.0.1:{port};
        root {folder}/root;
        location /static/ {{ add_header Cache-Control "max-age=60"; }}
        location /short/ {{ add_header Cache-Control "max-age=1"; }}
        location /private/ {{ add_header Cache-Control "no-store"; }}
        location /plain/ {{ }}
        location /text/ {{
            gzip on;
            gzip_proxied any;
            gzip_vary on;
            gzip_types text/plain;
            add_header Cache-Control "max-age=60";
        }}
    }}
}}
"#
    )
}

fn alphabet() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(26_000).collect()
}

/// 64 MiB in which no part looks like another.
fn big_content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(BIG);
    while content.len() < BIG {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content
}

fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool("gzip"))
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let compressed = compressed.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&compressed));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Equality without printing megabytes when it fails.
#[track_caller]
fn assert_same_bytes(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "length");
    if let Some(at) = got.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("bodies differ from byte {at} on");
    }
}

#[test]
fn a_static_file_is_fetched_once_and_then_served_from_memory() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let url = outrigger.url("/static/alphabet.txt");
    let direct = get(&format!("{}/static/alphabet.txt", nginx.url()), &[]);

    let miss = get(&url, &[]);
    assert_eq!(miss.status, 200);
    assert!(miss.cache_says("fwd=uri-miss"), "{}", miss.cache_status());
    assert!(miss.cache_says("stored"), "{}", miss.cache_status());

    let hit = get(&url, &[]);
    assert!(hit.is_hit(), "{}", hit.cache_status());
    let age: u32 = hit.header("age").parse().expect("a hit has an age");
    assert!(age < 30, "{age}");
    for reply in [&miss, &hit] {
        assert_same_bytes(&reply.body, &alphabet());
        for name in [
            "etag",
            "last-modified",
            "content-type",
            "content-length",
            "cache-control",
            "accept-ranges",
        ] {
            assert_eq!(reply.header(name), direct.header(name), "{name}");
        }
    }
    // One request of ours, straight, and one through the cache.
    assert_eq!(nginx.requests_for("/static/alphabet.txt"), ["GET 200", "GET 200"]);

    let head = request(Method::HEAD, &url, &[], Bytes::new());
    assert!(head.is_hit(), "{}", head.cache_status());
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "26000", 0));

    let missing = get(&outrigger.url("/static/missing"), &[]);
    assert_eq!(missing.status, 404);
}

#[test]
fn uncacheable_files_pass_every_time() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    for _ in 0..3 {
        let reply = get(&outrigger.url("/private/alphabet.txt"), &[]);
        assert!(!reply.is_hit(), "{}", reply.cache_status());
        assert!(!reply.cache_says("stored"), "{}", reply.cache_status());
        assert_same_bytes(&reply.body, &alphabet());
    }
    assert_eq!(nginx.requests_for("/private/alphabet.txt").len(), 3);
}

#[test]
fn conditional_requests_are_answered_from_memory() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let url = outrigger.url("/static/alphabet.txt");
    let stored = get(&url, &[]);
    let (etag, modified) = (stored.header("etag"), stored.header("last-modified"));

    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("if-none-match", etag)], 304),
        (&[("if-none-match", &format!("W/{etag}"))], 304),
        (&[("if-none-match", "\"other\", \"another\"")], 200),
        (&[("if-none-match", "*")], 304),
        (&[("if-modified-since", modified)], 304),
        (&[("if-modified-since", "Thu, 01 Jan 1998 00:00:00 GMT")], 200),
        (&[("if-none-match", "\"other\""), ("if-modified-since", modified)], 200),
    ];
    for (headers, status) in cases {
        let reply = get(&url, headers);
        assert_eq!(reply.status, *status, "{headers:?}");
        assert!(reply.is_hit(), "{headers:?}: {}", reply.cache_status());
        assert_eq!(reply.header("etag"), etag, "{headers:?}");
        assert_eq!(reply.body.is_empty(), *status == 304, "{headers:?}");
    }
    assert_eq!(nginx.requests_for("/static/alphabet.txt"), ["GET 200"]);
}

#[test]
fn stale_files_are_validated_and_changed_ones_replaced() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let url = outrigger.url("/short/alphabet.txt");
    let past_its_life = || std::thread::sleep(Duration::from_millis(2_100));
    assert!(get(&url, &[]).cache_says("stored"));

    past_its_life();
    let validated = get(&url, &[]);
    assert_eq!(validated.status, 200);
    assert!(validated.cache_says("fwd=stale"), "{}", validated.cache_status());
    assert!(validated.cache_says("fwd-status=304"), "{}", validated.cache_status());
    assert_same_bytes(&validated.body, &alphabet());
    let fresh_again = get(&url, &[]);
    assert!(fresh_again.is_hit(), "{}", fresh_again.cache_status());

    past_its_life();
    nginx.write("short/alphabet.txt", b"changed");
    let changed = get(&url, &[]);
    assert_eq!((changed.status, &changed.body[..]), (200, &b"changed"[..]));
    assert!(
        changed.cache_says("fwd=stale") && changed.cache_says("fwd-status=200"),
        "{}",
        changed.cache_status()
    );
    let hit = get(&url, &[]);
    assert!(hit.is_hit() && hit.body == "changed", "{}", hit.cache_status());
    assert_eq!(nginx.requests_for("/short/alphabet.txt"), ["GET 200", "GET 304", "GET 200"]);
}

#[test]
fn compressed_and_plain_variants_live_side_by_side() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let url = outrigger.url("/text/alphabet.txt");
    let plain = || get(&url, &[]);
    let compressed = || get(&url, &[("accept-encoding", "gzip")]);

    let first = plain();
    assert!(!first.is_hit() && first.header("content-encoding").is_empty());
    assert!(plain().is_hit());
    let first = compressed();
    assert!(!first.is_hit(), "{}", first.cache_status());
    assert_eq!(first.header("vary").to_lowercase(), "accept-encoding");
    assert_eq!(first.header("content-encoding"), "gzip");

    for _ in 0..2 {
        let reply = compressed();
        assert!(reply.is_hit(), "{}", reply.cache_status());
        assert_eq!(reply.header("content-encoding"), "gzip");
        assert_same_bytes(&gunzip(&reply.body), &alphabet());
        let reply = plain();
        assert!(reply.is_hit(), "{}", reply.cache_status());
        assert_eq!(reply.header("content-encoding"), "");
        assert_same_bytes(&reply.body, &alphabet());
    }
    assert_eq!(nginx.requests_for("/text/alphabet.txt"), ["GET 200", "GET 200"]);
}

#[test]
fn ranges_are_cut_from_the_stored_file() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let content = alphabet();

    // Nothing stored: the range is the origin's.
    let cold = get(&outrigger.url("/private/alphabet.txt"), &[("range", "bytes=5-9")]);
    assert_eq!((cold.status, cold.header("content-range")), (206, "bytes 5-9/26000"));
    assert_eq!(&cold.body[..], &content[5..10]);

    let url = outrigger.url("/static/alphabet.txt");
    let stored = get(&url, &[]);
    let etag = stored.header("etag");
    let part = |range: &str, extra: &[(&str, &str)]| -> Reply {
        let headers: Vec<_> = [("range", range)].into_iter().chain(extra.iter().copied()).collect();
        let reply = get(&url, &headers);
        assert!(reply.is_hit(), "{range}: {}", reply.cache_status());
        reply
    };
    for (range, start, end) in [
        ("bytes=100-199", 100, 199),
        ("bytes=0-0", 0, 0),
        ("bytes=-50", 25_950, 25_999),
        ("bytes=25990-", 25_990, 25_999),
        ("bytes=25990-99999", 25_990, 25_999),
    ] {
        let reply = part(range, &[]);
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.header("content-range"), format!("bytes {start}-{end}/26000"));
        assert_eq!(reply.header("content-length"), (end - start + 1).to_string());
        assert_same_bytes(&reply.body, &content[start..=end]);
    }
    let beyond = part("bytes=26000-", &[]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */26000"));
    assert_eq!(part("bytes=0-9", &[("if-range", etag)]).status, 206);
    let changed = part("bytes=0-9", &[("if-range", "\"other\"")]);
    assert_eq!((changed.status, changed.body.len()), (200, 26_000));
    assert_eq!(part("lines=1-2", &[]).status, 200, "unknown units are ignored");
    // Several ranges may be answered in parts, or with the whole.
    let several = part("bytes=0-1,100-101", &[]);
    match several.status {
        206 => assert!(
            several.header("content-type").starts_with("multipart/byteranges"),
            "{several:?}"
        ),
        status => assert_eq!((status, several.body.len()), (200, 26_000)),
    }
    assert_eq!(nginx.requests_for("/static/alphabet.txt"), ["GET 200"]);
}

#[test]
fn a_purge_makes_the_next_request_a_miss() {
    let nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let url = outrigger.url("/static/alphabet.txt");
    get(&url, &[]);
    assert!(get(&url, &[]).is_hit());
    for (selector, value) in [("url", Value::from(url.as_str())), ("all", Value::from(true))] {
        let body = serde_json::json!({selector: value, "mode": "hard"}).to_string();
        let purge = format!("http://{}/purge", outrigger.admin);
        let answer = request(Method::POST, &purge, &[("content-type", "application/json")], body);
        assert!((200..300).contains(&answer.status), "{answer:?}");
        let after = get(&url, &[]);
        assert!(!after.is_hit(), "after a purge by {selector}: {}", after.cache_status());
        assert!(get(&url, &[]).is_hit());
    }
    assert_eq!(nginx.requests_for("/static/alphabet.txt").len(), 3);
}

#[test]
fn an_origin_that_restarts_or_dies() {
    let mut nginx = Nginx::start();
    let outrigger = Outrigger::in_front_of(&nginx.url());
    let cached = outrigger.url("/static/alphabet.txt");
    get(&cached, &[]);
    assert_eq!(get(&outrigger.url("/private/alphabet.txt"), &[]).status, 200);

    nginx.restart();
    let reply = get(&outrigger.url("/private/alphabet.txt"), &[]);
    assert_eq!(
        reply.status, 200,
        "a pooled connection that the origin has closed is not the client's trouble"
    );

    nginx.process.kill();
    assert!(get(&cached, &[]).is_hit(), "what is fresh needs no origin");
    let unreachable = get(&outrigger.url("/private/alphabet.txt"), &[]);
    assert!((502..=504).contains(&unreachable.status), "{unreachable:?}");
}

#[test]
fn a_big_file_is_intact_as_miss_as_hit_and_for_those_who_wait() {
    let nginx = Nginx::start();
    let content = big_content();
    nginx.write("static/big.bin", &content);
    let config = "memory: {bytesMax: 256MiB, objectBytesMax: 128MiB}\n";
    let outrigger = Outrigger::run(&["--upstream", &nginx.url()], config);
    let url = outrigger.url("/static/big.bin");

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_same_bytes(&get(&url, &[]).body, &content));
        }
    });
    let hit = get(&url, &[]);
    assert!(hit.is_hit(), "{}", hit.cache_status());
    assert_eq!(hit.header("content-length"), BIG.to_string());
    assert_same_bytes(&hit.body, &content);
    let part = get(&url, &[("range", "bytes=33554432-33554531")]);
    assert_eq!((part.status, part.is_hit()), (206, true));
    assert_same_bytes(&part.body, &content[33_554_432..=33_554_531]);
    assert_eq!(
        nginx.requests_for("/static/big.bin"),
        ["GET 200"],
        "four clients at once, one fetch"
    );
}

#[test]
fn a_big_file_that_is_not_stored_streams_through_in_bounded_memory() {
    let nginx = Nginx::start();
    let content = big_content();
    nginx.write("static/big.bin", &content);
    nginx.write("private/big.bin", &content);
    let config = "memory: {bytesMax: 256MiB, objectBytesMax: 8MiB}\n";
    let outrigger = Outrigger::run(&["--upstream", &nginx.url()], config);
    let before = outrigger.process.resident_bytes();

    for path in ["/static/big.bin", "/private/big.bin"] {
        for _ in 0..2 {
            let reply = get(&outrigger.url(path), &[]);
            assert!(
                !reply.is_hit() && !reply.cache_says("stored"),
                "{path}: {}",
                reply.cache_status()
            );
            assert_eq!(reply.header("content-length"), BIG.to_string(), "{path}");
            assert_same_bytes(&reply.body, &content);
        }
        assert_eq!(nginx.requests_for(path).len(), 2, "{path}");
    }
    let growth = outrigger.process.resident_bytes().saturating_sub(before) >> 20;
    assert!(growth < 32, "256 MiB went through; memory grew by {growth} MiB");
}
