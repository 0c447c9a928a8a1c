//! Where the proxy listens and connects: TCP, Unix sockets, several at once.

use tempfile::TempDir;

use crate::support::{Client, Origin, Proxy, Reply, Setup, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_listener_serves_the_same_cache() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let proxy = Setup::of(&origin).unix().start().await;
    let socket = proxy.unix.clone().unwrap();
    get(socket.as_path(), "/a").await.assert_is(200, "hello").assert_fwd("uri-miss");
    get(socket.as_path(), "/a").await.assert_is(200, "hello").assert_hit();
    get(proxy.addr, "/a").await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_listener_replaces_a_socket_that_a_dead_process_left() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("hello"));
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("left.sock");
    // Dropping a listener leaves its file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut command = crate::support::outrigger();
    let admin = crate::support::free_addr();
    let mut child = command
        .args(["run", "--upstream", &origin.url(), "--admin", &admin.to_string()])
        .args(["--listen", &format!("unix:{}", socket.display())])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let answer = crate::support::eventually("the socket answers", || async {
        let mut client = Client::try_connect(socket.as_path()).await.ok()?;
        client.request("GET", "/a", &[]).await;
        client.try_response("GET").await.ok()
    });
    let answer = tokio::time::timeout(crate::support::PATIENCE, answer).await;
    child.kill().unwrap();
    child.wait().unwrap();
    answer.expect("an answer over the socket").assert_is(200, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_upstream_is_reached() {
    let dir = TempDir::new().unwrap();
    let origin = Origin::start_unix(&dir.path().join("app.sock")).await;
    origin.on("/a", |r| {
        let host = r.header("host").unwrap_or("none").to_owned();
        Reply::cached("max-age=60", host)
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/a").await.assert_is(200, "shop.test").assert_fwd("uri-miss");
    proxy.get("/a").await.assert_is(200, "shop.test").assert_hit();
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_listeners_share_one_cache() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let proxy = Setup::of(&origin).listeners(3).start().await;
    get(proxy.addrs[0], "/a").await.assert_is(200, "hello").assert_fwd("uri-miss");
    for addr in &proxy.addrs {
        get(*addr, "/a").await.assert_is(200, "hello").assert_hit();
    }
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_from_the_bootstrap_file_serve_like_those_from_flags() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let config = "memory: {bytesMax: 16MiB, objectBytesMax: 1MiB, variantsMax: 8}\nworkers: 2";
    let proxy = Setup::of(&origin).config(config).listeners(2).unix().start().await;
    get(proxy.addrs[1], "/a").await.assert_is(200, "hello");
    get(proxy.addrs[0], "/a").await.assert_hit();
    get(proxy.unix.as_deref().unwrap(), "/a").await.assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_share_the_load_and_a_dead_one_is_left_out() {
    let (one, mut two) = (Origin::start().await, Origin::start().await);
    for origin in [&one, &two] {
        origin.on("*", |_| Reply::ok("x").header("Cache-Control", "no-store"));
    }
    let endpoints = format!("endpoints: [\"{}\", \"{}\"]", one.addr, two.addr);
    let check = "healthCheck: {intervalMs: 200, timeoutMs: 200}";
    let proxy = Setup::of(&one).upstream_line(&endpoints).upstream_line("balance: roundRobin");
    let proxy = proxy.upstream_line(check).start().await;
    for n in 0..10 {
        proxy.get(&format!("/{n}")).await.assert_status(200);
    }
    let (first, second) = (one.all_requests().len(), two.all_requests().len());
    assert!(first >= 3 && second >= 3, "round robin gave {first} and {second}");

    two.stop().await;
    // Health checks take a moment to notice; then every request succeeds.
    crate::support::eventually("only the live endpoint is used", || async {
        for n in 0..6 {
            if proxy.get(&format!("/after/{n}")).await.status != 200 {
                return None;
            }
        }
        Some(())
    })
    .await;
}
