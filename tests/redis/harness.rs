//! What the other tests take for granted about the servers that they start.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer, SlowProxy};
use crate::support::within;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_empty_again_after_a_restart_on_the_same_port() {
    let mut server = RedisServer::start().await;
    let url = server.url();
    assert_eq!(server.cli(&["SET", "a", "b"]).await, "OK");
    assert_eq!(server.keys("*").await, ["a"]);
    server.restart().await;
    assert_eq!(server.url(), url);
    assert_eq!(server.cli(&["GET", "a"]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_server() {
    let server = RedisServer::builder()
        .password("secret")
        .user("cart on >pw ~or:shop:* +get")
        .tls()
        .maxmemory("8mb")
        .debug_command()
        .start()
        .await;
    assert!(server.url().starts_with("rediss://"));
    assert_eq!(server.cli(&["DEBUG", "SLEEP", "0"]).await, "OK");
    assert!(server.cli(&["ACL", "LIST"]).await.contains("user cart on"));
    assert!(server.cli(&["CONFIG", "GET", "maxmemory"]).await.contains("8388608"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_replaces_a_master_that_died() {
    let mut sentinel = RedisSentinel::start().await;
    let old = sentinel.master().addr();
    assert_eq!(sentinel.master().cli(&["SET", "a", "b"]).await, "OK");
    sentinel.kill_master();
    sentinel.wait_for_failover().await;
    assert_ne!(sentinel.master().addr(), old);
    assert_eq!(sentinel.master().cli(&["SET", "a", "c"]).await, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_replaces_a_master_that_died() {
    let mut cluster = RedisCluster::start().await;
    assert_eq!(cluster.masters().await, [0, 1, 2]);
    let master = cluster.master_of("a").await;
    cluster.kill(master);
    cluster.wait_for_failover().await;
    assert_ne!(cluster.master_of("a").await, master);
}

async fn ping(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    within("a pong", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_delays_holds_and_cuts() {
    let server = RedisServer::start().await;
    let proxy = SlowProxy::start(server.addr()).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    ping(&mut stream).await;
    proxy.delay(Duration::from_millis(50), Duration::from_millis(50));
    assert!(ping(&mut stream).await >= Duration::from_millis(100));

    proxy.blackhole();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    let silence = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await;
    assert!(silence.is_err(), "{silence:?}");
    proxy.heal();
    within("the held answer", stream.read_exact(&mut answer)).await.unwrap();

    proxy.cut();
    let end = within("the end", stream.read(&mut answer)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    ping(&mut TcpStream::connect(proxy.addr()).await.unwrap()).await;
    proxy.refuse();
    let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
    let end = within("a refusal", refused.read(&mut answer)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
