//! The ways to reach a Redis: socket, password, ACL user, TLS, several servers,
//! Sentinel, cluster.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::load::{Load, origin as loaded};
use crate::pods::{
    ENTRIES, Pod, assert_redis_hit, is_redis_hit, lines, pod, stored, until_up, writes,
};
use crate::support::redis::{Authority, RedisCluster, RedisSentinel, RedisServer};
use crate::support::{Origin, Proxy, Reply, eventually, get};

/// The rights that a pod of workload `cart` in namespace `shop` needs, and no
/// more: each of these commands is used. `HELLO` and `AUTH` need no right. A
/// cluster needs `+cluster|slots` as well.
const ACL: &str = "~or:shop:cart:* ~or:shop:_shared:* ~or:{shop}:* -@all +ping +info +time +eval +get \
                   +getrange +set +del +strlen +pttl +pexpire +hset +hsetnx +hget +hgetall +hincrby \
                   +hdel +xadd +xread +xrevrange +zincrby +zrevrange +zremrangebyrank";

async fn ten_minutes() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)));
    origin
}

/// Two pods share entries and purges.
async fn works(setup: &Pod) {
    let (a, b) = setup.pair().await;
    works_for(&a, &b).await;
}

async fn works_for(a: &Proxy, b: &Proxy) {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let path = format!("/works{}", CALLS.fetch_add(1, Ordering::Relaxed));
    let before = writes(a, "stored").await;
    a.get(&path).await.assert_status(200);
    stored(a, before + 1).await;
    assert_redis_hit(&b.get(&path).await);
    let purge = serde_json::json!({"url": format!("http://shop.test{path}"), "wait": "all"});
    let answer = b.purge(purge).await;
    assert_eq!(answer["scope"], "namespace", "{answer}");
    let fetched = a.get(&path).await;
    assert!(!fetched.cache().has("hit"), "purged through B: {fetched:#?}");
}

/// A file with a password in it.
fn password_file(password: &str) -> (TempDir, String) {
    let dir = TempDir::new().expect("a temporary folder");
    let path = dir.path().join("password");
    fs::write(&path, format!("{password}\n")).expect("written");
    (dir, path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_unix_socket() {
    let (origin, redis) = (ten_minutes().await, RedisServer::builder().unix().start().await);
    works(&pod(&origin, redis.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_database() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    works(&pod(&origin, format!("{}/3", redis.url()))).await;
    assert_eq!(redis.keys("*").await.len(), 0);
    assert!(redis.cli(&["INFO", "keyspace"]).await.contains("db3:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_password() {
    let origin = ten_minutes().await;
    let redis = RedisServer::builder().password("open-sesame").start().await;
    let in_url = redis.url().replace("://", "://:open-sesame@");
    works(&pod(&origin, in_url)).await;
    let (_dir, file) = password_file("open-sesame");
    works(&pod(&origin, redis.url()).set("passwordFile", &file)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_does_no_harm() {
    let origin = ten_minutes().await;
    let redis = RedisServer::builder().password("open-sesame").start().await;
    let (_dir, file) = password_file("close-sesame");
    let a = pod(&origin, redis.url()).set("passwordFile", &file).start_anyhow().await;
    a.get("/x").await.assert_status(200);
    a.get("/x").await.assert_hit();
    eventually("the log gives the reason", || async {
        let log = a.log();
        let down = log.lines().find(|line| line.contains("redis tier is down"))?;
        (down.contains("WRONGPASS") || down.to_lowercase().contains("auth")).then_some(())
    })
    .await;
    assert!(!a.log().contains("close-sesame"), "{}", a.log());
    assert_eq!(lines(&a, "redis tier is up"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_user_with_no_more_rights_than_needed() {
    let origin = ten_minutes().await;
    let redis = RedisServer::builder().user(&format!("cart on >pw {ACL}")).start().await;
    let (_dir, file) = password_file("pw");
    let setup = pod(&origin, redis.url())
        .set("username", "cart")
        .set("passwordFile", &file)
        .set("quota", "64MiB")
        .set("singleFlight", "{enabled: true}")
        .set("warmStart", "{beforeReady: true}");
    let (a, b) = setup.pair().await;
    works_for(&a, &b).await;
    for n in 0..20 {
        a.get(&format!("/{n}")).await.assert_status(200);
    }
    // A third pod warms up, as the same user.
    works_for(&setup.start().await, &a).await;
    let denied = redis.cli(&["ACL", "LOG"]).await;
    assert!(denied.is_empty(), "{denied}");
    for pod in [&a, &b] {
        assert!(!pod.log().contains("NOPERM"), "{}", pod.log());
    }
}

/// Adds the user with the rights above and a few more.
async fn admit(server: &RedisServer, more: &str) {
    let mut words = vec!["ACL", "SETUSER", "cart", "on", ">pw"];
    words.extend(ACL.split_whitespace().chain(more.split_whitespace()));
    assert_eq!(server.cli(&words).await, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_user_of_a_cluster() {
    let (origin, cluster) = (ten_minutes().await, RedisCluster::start().await);
    for node in cluster.nodes() {
        admit(node, "+cluster|slots").await;
    }
    let (_dir, file) = password_file("pw");
    let setup = pod(&origin, cluster.url()).set("username", "cart").set("passwordFile", &file);
    works(&setup).await;
    for node in cluster.nodes() {
        let denied = node.cli(&["ACL", "LOG"]).await;
        assert!(denied.is_empty(), "{denied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_user_of_the_master_that_sentinel_names() {
    let (origin, sentinel) = (ten_minutes().await, RedisSentinel::start().await);
    for server in sentinel.servers() {
        admit(server, "").await;
    }
    let (_dir, file) = password_file("pw");
    let setup = pod(&origin, sentinel.url()).set("username", "cart").set("passwordFile", &file);
    works(&setup).await;
    let denied = sentinel.master().cli(&["ACL", "LOG"]).await;
    assert!(denied.is_empty(), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_client_certificate() {
    let (origin, redis) = (ten_minutes().await, RedisServer::builder().tls().start().await);
    let tls = redis.authority().expect("it speaks TLS").section();
    works(&pod(&origin, redis.url()).set("tls", &tls)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_an_unknown_authority_vouches_for_is_not_trusted() {
    let ours = Arc::new(Authority::new());
    let (origin, redis) = (ten_minutes().await, RedisServer::builder().tls().start().await);
    let a = pod(&origin, redis.url()).set("tls", &ours.section()).start_anyhow().await;
    a.get("/x").await.assert_status(200);
    eventually("the log says so", || async {
        (lines(&a, "redis tier is down") >= 1).then_some(())
    })
    .await;
    assert_eq!(lines(&a, "redis tier is up"), 0);
    assert_eq!(redis.keys("*").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_spread_over_several_servers() {
    const N: usize = 60;
    let origin = ten_minutes().await;
    let (mut one, two, three) =
        tokio::join!(RedisServer::start(), RedisServer::start(), RedisServer::start());
    let url = format!("redis://{},{},{}", one.addr(), two.addr(), three.addr());
    let (a, b) = pod(&origin, &url).pair().await;
    // The same servers in another order are the same ring.
    let c = pod(&origin, format!("redis://{},{},{}", three.addr(), one.addr(), two.addr()));
    let c = c.start().await;
    for n in 0..N {
        a.get(&format!("/{n}")).await.assert_status(200);
    }
    stored(&a, N).await;
    let mut all = Vec::new();
    for server in [&one, &two, &three] {
        let keys = server.keys(ENTRIES).await;
        assert!(keys.len() >= N / 10, "{} of {N} keys", keys.len());
        all.extend(keys);
    }
    let lost = one.keys(ENTRIES).await.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), N, "each key is on one server");
    for n in 0..N {
        assert_redis_hit(&b.get(&format!("/{n}")).await);
    }

    one.kill();
    let mut hits = 0;
    for n in 0..N {
        let response = c.get(&format!("/{n}")).await;
        response.assert_status(200);
        hits += usize::from(is_redis_hit(&response));
    }
    assert_eq!(hits, N - lost, "the keys of one server are lost, and no others");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_names_the_master() {
    let (origin, sentinel) = (ten_minutes().await, RedisSentinel::start_with(Some("guard")).await);
    let (_dir, file) = password_file("guard");
    let setup = pod(&origin, sentinel.url());
    works(&setup.set("sentinel", &format!("{{passwordFile: {file}}}"))).await;
    assert!(!sentinel.master().keys(ENTRIES).await.is_empty());
}

/// A path through one pod is a hit through another again.
async fn shares_again(a: &Proxy, b: &Proxy) {
    let n = AtomicUsize::new(0);
    eventually("entries are shared again", || async {
        let path = format!("/load/again{}", n.fetch_add(1, Ordering::Relaxed));
        a.get(&path).await.assert_status(200);
        tokio::time::sleep(Duration::from_millis(50)).await;
        is_redis_hit(&b.get(&path).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_of_sentinel_costs_no_client_an_error() {
    let (origin, mut sentinel) = (loaded().await, RedisSentinel::start().await);
    let (a, b) = pod(&origin, sentinel.url()).set("readTimeoutMs", "50").forgetful().pair().await;
    let load = Load::start(&[&a, &b]);
    load.sees_redis_hits().await;
    sentinel.kill_master();
    sentinel.wait_for_failover().await;
    load.sees_redis_hits().await;
    tokio::join!(until_up(&a), until_up(&b));
    shares_again(&a, &b).await;
    eventually("the new master has the keys", || async {
        let keys = sentinel.master_now().await?.keys(ENTRIES).await;
        (!keys.is_empty()).then_some(())
    })
    .await;
    load.end().await;
    let purge = serde_json::json!({"url": "http://shop.test/x", "wait": "appended"});
    eventually("purges are shared again", || async {
        let response = a.try_purge(&purge.to_string()).await;
        (response.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_master_that_wakes_up_is_left_alone() {
    let (origin, mut sentinel) = (loaded().await, RedisSentinel::start().await);
    let (a, b) = pod(&origin, sentinel.url()).set("readTimeoutMs", "50").pair().await;
    shares_again(&a, &b).await;
    let old = sentinel.stop_master();
    sentinel.wait_for_failover().await;
    shares_again(&a, &b).await;
    sentinel.servers()[old].continue_process();
    // Sentinel makes it a replica of the new one.
    eventually("the old master follows", || async {
        let role = sentinel.servers()[old].cli(&["ROLE"]).await;
        role.starts_with("slave").then_some(())
    })
    .await;
    shares_again(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_shares_entries_and_purges() {
    let (origin, cluster) = (ten_minutes().await, RedisCluster::start().await);
    let (a, b) = pod(&origin, cluster.url()).pair().await;
    works_for(&a, &b).await;
    for n in 0..60 {
        a.get(&format!("/{n}")).await.assert_status(200);
    }
    eventually("every entry is there", || async {
        (cluster.keys(ENTRIES).await.len() >= 60).then_some(())
    })
    .await;
    for master in cluster.masters().await {
        assert!(cluster.nodes()[master].keys(ENTRIES).await.len() >= 6, "keys are spread");
    }
    for n in 0..60 {
        assert_redis_hit(&b.get(&format!("/{n}")).await);
    }
    // The purge log and its companions are in one slot.
    let log = cluster.master_of("or:{shop}:log").await;
    assert_eq!(cluster.nodes()[log].cli(&["EXISTS", "or:{shop}:log"]).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_writes_reaches_every_node_of_a_cluster() {
    let (origin, cluster) = (ten_minutes().await, RedisCluster::start().await);
    let a = pod(&origin, cluster.url()).start().await;
    let mut burst = JoinSet::new();
    for n in 0..60 {
        let addr = a.addr;
        burst.spawn(async move { get(addr, &format!("/burst{n}")).await.status });
    }
    assert!(burst.join_all().await.iter().all(|status| *status == 200));
    stored(&a, 60).await;
    assert_eq!(cluster.keys(ENTRIES).await.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_reach_every_node_of_a_cluster() {
    let (origin, cluster) = (Origin::start().await, RedisCluster::start().await);
    origin.on("*", |r| {
        let language = r.header("accept-language").unwrap_or("none");
        Reply::cached("max-age=600", language).header("Vary", "Accept-Language")
    });
    let (a, b) = pod(&origin, cluster.url()).pair().await;
    for n in 0..10 {
        let (path, english) = (format!("/v{n}"), [("Accept-Language", "en")]);
        a.fetch("GET", &path, &english).await.assert_is(200, "en");
        stored(&a, n + 1).await;
        assert_redis_hit(&b.fetch("GET", &path, &english).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_and_single_flight_work_on_a_cluster() {
    let (origin, cluster) = (ten_minutes().await, RedisCluster::start().await);
    let setup = pod(&origin, cluster.url()).set("quota", "64MiB");
    works(&setup).await;
    works(&setup.set("singleFlight", "{enabled: true}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_dies_and_no_client_has_an_error() {
    let (origin, mut cluster) = (loaded().await, RedisCluster::start().await);
    let (a, b) = pod(&origin, cluster.url()).set("readTimeoutMs", "50").forgetful().pair().await;
    let load = Load::start(&[&a, &b]);
    load.sees_redis_hits().await;
    let victim = cluster.master_of("or:{shop}:log").await;
    cluster.kill(victim);
    cluster.wait_for_failover().await;
    load.sees_redis_hits().await;
    tokio::join!(until_up(&a), until_up(&b));
    shares_again(&a, &b).await;
    load.end().await;
    eventually("purges are shared again", || async {
        let response = a.try_purge("{\"url\": \"http://shop.test/x\"}").await;
        (response.status == 200).then_some(())
    })
    .await;
}
