//! A namespace takes no more of Redis than it may.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::pods::{ENTRIES, assert_redis_hit, pod, stored, writes};
use crate::support::redis::RedisServer;
use crate::support::{Origin, PATIENCE, Proxy, Reply, eventually, get};

const BODY: usize = 4096;

/// Every path has a body of its own that does not compress, for a time that
/// its first segment says.
async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        let seconds = r.path().split('/').nth(1).unwrap_or("600");
        let mut state = r.path().bytes().fold(7_u64, |s, b| s * 31 + u64::from(b));
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        });
        Reply::cached(&format!("max-age={seconds}"), noise.take(BODY).collect::<Vec<_>>())
    });
    origin
}

/// Fetches `n` paths below a prefix and waits until each write has its end.
async fn fetch(proxy: &Proxy, prefix: &str, n: usize) {
    let done = async || {
        let mut done = 0;
        for result in ["stored", "quota", "dropped", "failed", "out-of-memory"] {
            done += writes(proxy, result).await;
        }
        done
    };
    let before = done().await;
    for n in 0..n {
        proxy.get(&format!("{prefix}/{n}")).await.assert_status(200);
    }
    eventually("every write has ended", || async { (done().await >= before + n).then_some(()) })
        .await;
}

async fn size_of(redis: &RedisServer, pattern: &str) -> usize {
    let mut size = 0;
    for key in redis.keys(pattern).await {
        size += redis.cli(&["STRLEN", &key]).await.parse::<usize>().unwrap_or(0);
    }
    size
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_above_the_quota_are_refused_and_counted() {
    let (origin, redis) = (origin().await, RedisServer::start().await);
    let setup = pod(&origin, redis.url()).set("quota", "64KiB");
    let other = pod(&origin, redis.url()).set("namespace", "bank").set("quota", "64KiB");
    let (a, b) = setup.pair().await;
    fetch(&a, "/600/a", 40).await;
    assert!(writes(&a, "quota").await >= 20, "{} refused", writes(&a, "quota").await);
    let size = size_of(&redis, ENTRIES).await;
    assert!(size <= 80 * 1024, "{size} bytes in Redis");
    assert!(size >= 32 * 1024, "the quota is used: {size} bytes");
    // The other pod comes to know of it.
    let n = AtomicUsize::new(0);
    eventually("the other pod refuses too", || async {
        fetch(&b, &format!("/600/b{}", n.fetch_add(1, Ordering::Relaxed)), 1).await;
        (writes(&b, "quota").await >= 1).then_some(())
    })
    .await;
    // Refused writes are refused quietly: clients have their hits from memory.
    a.get("/600/a/39").await.assert_hit();

    // Others have their own.
    let c = other.start().await;
    fetch(&c, "/600/c", 5).await;
    assert_eq!(writes(&c, "quota").await, 0);
    assert_eq!(redis.keys("or:bank:cart:e:*").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_makes_room() {
    let (origin, redis) = (origin().await, RedisServer::start().await);
    let policy = "{stale: {whileRevalidate: 0s, ifError: 0s}}";
    let a = pod(&origin, redis.url()).set("quota", "64KiB").cache(policy).start().await;
    fetch(&a, "/2/a", 40).await;
    assert!(writes(&a, "quota").await >= 1);
    eventually("the entries expire", || async {
        redis.keys(ENTRIES).await.is_empty().then_some(())
    })
    .await;
    // The account is kept by the minute in which values expire.
    let deadline = Instant::now() + Duration::from_secs(60) + PATIENCE;
    for n in 0.. {
        let before = writes(&a, "stored").await;
        fetch(&a, &format!("/600/b{n}"), 1).await;
        if writes(&a, "stored").await > before {
            break;
        }
        assert!(Instant::now() < deadline, "there is no room");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_an_entry_takes_no_more_room() {
    let (origin, redis) = (origin().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).set("quota", "64KiB").pair().await;
    for n in 0..40 {
        a.get("/600/same").await.assert_status(200);
        stored(&a, n + 1).await;
        a.purge(serde_json::json!({"url": "http://shop.test/600/same"})).await;
    }
    assert_eq!(writes(&a, "quota").await, 0);
    a.get("/600/other").await.assert_status(200);
    stored(&a, 41).await;
    assert_redis_hit(&b.get("/600/other").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_an_empty_quota() {
    let (origin, redis) = (origin().await, RedisServer::start().await);
    let a = pod(&origin, redis.url()).set("quota", "64KiB").start().await;
    fetch(&a, "/600/a", 40).await;
    assert!(writes(&a, "quota").await >= 1);
    // Everything has been entered into the account before it is lost.
    let size = size_of(&redis, ENTRIES).await;
    eventually("the account is complete", || async {
        let sums = redis.cli(&["HVALS", "or:{shop}:ledger"]).await;
        let sum: usize = sums.lines().filter_map(|sum| sum.parse::<usize>().ok()).sum();
        (sum >= size).then_some(())
    })
    .await;
    assert_eq!(redis.cli(&["FLUSHALL"]).await, "OK");
    // What was fetched while the purge log was gone with the rest is not shared.
    let before = writes(&a, "stored").await;
    let n = AtomicUsize::new(0);
    eventually("there is room", || async {
        let path = format!("/600/c{}", n.fetch_add(1, Ordering::Relaxed));
        a.get(&path).await.assert_status(200);
        (writes(&a, "stored").await > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_does_not_overrun_the_quota() {
    let (origin, redis) = (origin().await, RedisServer::start().await);
    let a = pod(&origin, redis.url()).set("quota", "64KiB").start().await;
    let mut burst = JoinSet::new();
    for n in 0..60 {
        let addr = a.addr;
        burst.spawn(async move { get(addr, &format!("/600/burst{n}")).await.status });
    }
    assert!(burst.join_all().await.iter().all(|status| *status == 200));
    eventually("every write has ended", || async {
        (writes(&a, "stored").await + writes(&a, "quota").await >= 60).then_some(())
    })
    .await;
    let size = size_of(&redis, ENTRIES).await;
    assert!(size <= 80 * 1024, "{size} bytes in Redis");
}
