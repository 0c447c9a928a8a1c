//! A pod that starts begins with what the others ask for most.

use std::collections::BTreeSet;

use crate::pods::{Pod, assert_memory_hit, lookups, pod, stored};
use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Reply, eventually};

const PATHS: usize = 10;

async fn ten_minutes() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)));
    origin
}

/// Makes `PATHS` paths hot through two pods, and waits until Redis knows. Only a
/// sample of the hits is counted, so it takes many.
async fn heat(setup: &Pod, redis: &RedisServer) -> (Proxy, Proxy) {
    let (a, b) = setup.pair().await;
    for n in 0..PATHS {
        a.get(&format!("/hot/{n}")).await.assert_status(200);
    }
    stored(&a, PATHS).await;
    let one = |n| format!("GET /hot/{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let round: String = (0..PATHS).map(one).collect();
    eventually("the hot keys are in Redis", || async {
        for pod in [&a, &b] {
            let mut client = pod.connect().await;
            for _ in 0..20 {
                client.send(&round).await;
                for _ in 0..PATHS {
                    client.response("GET").await.assert_hit();
                }
            }
        }
        let mut known = BTreeSet::new();
        for key in redis.keys("or:shop:cart:hot:*").await {
            let names = redis.cli(&["ZRANGE", &key, "0", "-1"]).await;
            known.extend(names.lines().map(str::to_owned));
        }
        (known.len() == PATHS).then_some(())
    })
    .await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_has_the_hot_entries_before_it_is_ready() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let setup = pod(&origin, redis.url());
    let _others = heat(&setup, &redis).await;
    let before = origin.all_requests().len();
    let third = setup.set("warmStart", "{beforeReady: true}").start().await;
    let asked = lookups(&third, "hit").await + lookups(&third, "miss").await;
    for n in 0..PATHS {
        let hit = third.get(&format!("/hot/{n}")).await;
        hit.assert_is(200, format!("/hot/{n} 1"));
        assert_memory_hit(&hit);
    }
    assert_eq!(origin.all_requests().len(), before, "no request for the origin");
    let again = lookups(&third, "hit").await + lookups(&third, "miss").await;
    assert_eq!(again, asked, "no lookup in Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn warming_up_beside_the_traffic_needs_no_origin_either() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let setup = pod(&origin, redis.url());
    let _others = heat(&setup, &redis).await;
    let third = setup.start().await;
    for n in 0..PATHS {
        third.get(&format!("/hot/{n}")).await.assert_is(200, format!("/hot/{n} 1")).assert_hit();
    }
    assert_eq!(origin.all_requests().len(), PATHS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_warm_entries_is_bounded() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let setup = pod(&origin, redis.url());
    let _others = heat(&setup, &redis).await;
    let third = setup.set("warmStart", "{keysMax: 5, beforeReady: true}").start().await;
    let mut from_memory = 0;
    for n in 0..PATHS {
        let hit = third.get(&format!("/hot/{n}")).await;
        hit.assert_is(200, format!("/hot/{n} 1")).assert_hit();
        from_memory += usize::from(!crate::pods::is_redis_hit(&hit));
    }
    assert!((1..=5).contains(&from_memory), "{from_memory} were warm");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_is_not_warmed_up() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let setup = pod(&origin, redis.url());
    let (a, _b) = heat(&setup, &redis).await;
    a.purge(serde_json::json!({"url": "http://shop.test/hot/3", "wait": "all"})).await;
    let third = setup.set("warmStart", "{beforeReady: true}").start().await;
    let fetched = third.get("/hot/3").await;
    fetched.assert_is(200, "/hot/3 2");
    assert_memory_hit(&third.get("/hot/4").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_redis_becomes_ready_all_the_same() {
    let (origin, mut redis) = (ten_minutes().await, RedisServer::start().await);
    redis.kill();
    let setup = pod(&origin, redis.url());
    let setup = setup.set("warmStart", "{beforeReady: true, timeoutMs: 1000}");
    let a = setup.start_anyhow().await;
    a.get("/x").await.assert_is(200, "/x 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_delays_readiness_by_the_limit_only() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    redis.stop_process();
    let setup = pod(&origin, redis.url());
    let setup = setup.set("warmStart", "{beforeReady: true, timeoutMs: 1000}");
    let began = std::time::Instant::now();
    let a = setup.start_anyhow().await;
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(8), "ready after {took:?}");
    a.get("/x").await.assert_is(200, "/x 1");
    redis.continue_process();
}
