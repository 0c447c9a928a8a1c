//! How long an entry stays in Redis, and what stays out of it.

use std::time::Duration;

use crate::pods::{
    ENTRIES, assert_memory_hit, assert_redis_hit, entries, is_redis_hit, pod, store_one, stored,
};
use crate::support::redis::RedisServer;
use crate::support::{Gate, Origin, Reply, Script, eventually};

/// What is left of a key's life.
async fn life(redis: &RedisServer, key: &str) -> Duration {
    let left = redis.cli(&["PTTL", key]).await;
    let left = left.parse::<i64>().expect("a number");
    Duration::from_millis(u64::try_from(left).unwrap_or_else(|_| panic!("{key} lives {left}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_ends_with_its_last_use() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    for (path, control) in [
        ("/plain", "max-age=60"),
        ("/swr", "max-age=60, stale-while-revalidate=600"),
        ("/sie", "max-age=60, stale-if-error=900"),
        ("/both", "max-age=60, stale-while-revalidate=600, stale-if-error=900"),
    ] {
        origin.always(path, Reply::cached(control, "x"));
    }
    let a = pod(&origin, redis.url()).start().await;
    let seconds = Duration::from_secs;
    for (path, window) in [("/plain", 0), ("/swr", 600), ("/sie", 900), ("/both", 900)] {
        let key = store_one(&a, &redis, path).await;
        let life = life(&redis, &key).await;
        // A minute of freshness and the longer of the two windows.
        assert!(life > seconds(window + 30), "{path}: {life:?}");
        if window > 0 {
            assert!(life < seconds(window + 1000), "{path}: {life:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_at_arrival_shortens_the_life() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let control = "max-age=1000, stale-while-revalidate=100, stale-if-error=100";
    origin.always("/old", Reply::cached(control, "x").header("Age", "900"));
    let a = pod(&origin, redis.url()).start().await;
    let key = store_one(&a, &redis, "/old").await;
    let life = life(&redis, &key).await;
    assert!(life > Duration::from_secs(150) && life < Duration::from_secs(500), "{life:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entry_from_redis_serves_its_window_and_is_refreshed_behind() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/s", move |r| match r.nth {
        1 => Reply::cached("max-age=2, stale-while-revalidate=600", "old").into(),
        _ => Script::new().gate(&held).reply(Reply::cached("max-age=600", "new")),
    });
    let (a, b) = pod(&origin, redis.url()).pair().await;
    a.get("/s").await.assert_is(200, "old");
    stored(&a, 1).await;
    eventually("it is stale", || async { a.get("/s").await.age().filter(|age| *age >= 3) }).await;
    // The origin holds the refresh, and B has its answer at once.
    let stale = b.get("/s").await;
    stale.assert_is(200, "old");
    assert!(stale.age().is_some_and(|age| age >= 2), "{stale:#?}");
    gate.open();
    eventually("B has the new one", || async { (b.get("/s").await.text() == "new").then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entry_in_memory_gives_way_to_a_fresher_one_of_another_pod() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("/f", |r| {
        let control = if r.nth == 1 { "max-age=3" } else { "max-age=600" };
        Reply::cached(control, r.nth.to_string())
    });
    let (a, b) = pod(&origin, redis.url()).pair().await;
    a.get("/f").await.assert_is(200, "1");
    stored(&a, 1).await;
    assert_redis_hit(&b.get("/f").await);
    assert_memory_hit(&b.get("/f").await);
    eventually("A fetches anew", || async { (a.get("/f").await.text() == "2").then_some(()) })
        .await;
    stored(&a, 2).await;
    // B's entry came from the same fetch, so it is stale too.
    let fresher = b.get("/f").await;
    fresher.assert_is(200, "2");
    assert_redis_hit(&fresher);
    assert_eq!(origin.hits("/f"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_validated_again_lives_on_in_redis() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("/e", |r| match (r.nth, r.header("if-none-match")) {
        (1, _) => Reply::cached("max-age=2", "body").header("ETag", "\"v1\""),
        (_, Some(_)) => {
            Reply::new(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=600")
        }
        _ => Reply::cached("max-age=600", "fetched whole"),
    });
    let (a, b) = pod(&origin, redis.url()).pair().await;
    a.get("/e").await.assert_is(200, "body");
    stored(&a, 1).await;
    eventually("A has validated it", || async {
        a.get("/e").await.assert_is(200, "body");
        (origin.hits("/e") == 2).then_some(())
    })
    .await;
    stored(&a, 2).await;
    let shared = b.get("/e").await;
    shared.assert_is(200, "body");
    assert_redis_hit(&shared);
    assert_eq!(origin.hits("/e"), 2);
}

/// Fetches `/small` through a pod with this `redis` field or route, and before
/// it a path that must stay in the pod.
async fn stays_in_the_pod(field: Option<(&str, &str)>, cache: &str, reply: Reply) {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.always("/local", reply);
    origin.always("/small", Reply::cached("max-age=600", "small"));
    let pods = pod(&origin, redis.url()).cache(cache);
    let pods = field.iter().fold(pods, |pods, (name, value)| pods.set(name, value));
    let (a, b) = pods.pair().await;
    a.get("/local").await.assert_status(200);
    assert_memory_hit(&a.get("/local").await);
    // Writes keep their order: when this one is there, the other will not come.
    a.get("/small").await.assert_status(200);
    entries(&redis, 1).await;
    let other = b.get("/local").await;
    other.assert_status(200).assert_fwd("uri-miss");
    assert_eq!(origin.hits("/local"), 2);
    assert_redis_hit(&b.get("/small").await);
    assert_eq!(redis.keys(ENTRIES).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_large_stays_in_the_pod() {
    let large = || Reply::cached("max-age=600", vec![b'l'; 40 * 1024]);
    stays_in_the_pod(Some(("objectBytesMax", "32KiB")), "{}", large()).await;
    stays_in_the_pod(None, "{redis: {maxObjectSize: 32KiB}}", large()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_that_is_too_short_stays_in_the_pod() {
    let short = || Reply::cached("max-age=20", "short");
    stays_in_the_pod(Some(("minTtlMs", "30000")), "{}", short()).await;
    stays_in_the_pod(None, "{redis: {minTtl: 30s}}", short()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_redis_evicted_is_fetched_again() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("/x", |r| Reply::cached("max-age=600", r.nth.to_string()));
    let (a, b) = pod(&origin, redis.url()).pair().await;
    let key = store_one(&a, &redis, "/x").await;
    assert_eq!(redis.cli(&["DEL", &key]).await, "1");
    let own = b.get("/x").await;
    own.assert_is(200, "2");
    assert!(!is_redis_hit(&own), "{own:#?}");
    // A keeps what it has.
    a.get("/x").await.assert_is(200, "1").assert_hit();
}
