//! One pod's fetch is every pod's hit.

use crate::pods::{
    ENTRIES, assert_memory_hit, assert_redis_hit, entries, is_redis_hit, lookups, pod, stored,
    until_up,
};
use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Reply, Setup, eventually};

async fn ten_minutes() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)));
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_one_pod_fetched_is_a_hit_for_another() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    let before = lookups(&a, "miss").await;
    let miss = a.get("/x").await;
    miss.assert_is(200, "/x 1").assert_fwd("uri-miss");
    assert_eq!(lookups(&a, "miss").await, before + 1);
    stored(&a, 1).await;

    let shared = b.get("/x").await;
    shared.assert_is(200, "/x 1");
    assert_redis_hit(&shared);
    let ttl: i64 = shared.cache().get("ttl").expect("a ttl").parse().expect("a number");
    assert!((500..=600).contains(&ttl), "{shared:#?}");
    assert!(!shared.cache().has("fwd"), "{shared:#?}");
    assert_eq!(shared.header("cache-control"), Some("max-age=600"));

    let again = b.get("/x").await;
    again.assert_is(200, "/x 1");
    assert_memory_hit(&again);
    assert_eq!(origin.hits("/x"), 1);
    assert_eq!(lookups(&b, "hit").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_alone_is_enough() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let a = Setup::of(&origin).flag("--redis", &redis.url()).start().await;
    until_up(&a).await;
    a.get("/x").await.assert_status(200);
    // Namespace and workload have their defaults.
    eventually("the entry is in Redis", || async {
        (redis.keys("or:default:default:e:*").await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn age_counts_the_time_in_redis() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    a.get("/x").await;
    stored(&a, 1).await;
    let aged = eventually("an age of two seconds", || async {
        a.get("/x").await.age().filter(|age| *age >= 2)
    })
    .await;
    let shared = b.get("/x").await;
    assert_redis_hit(&shared);
    assert!(shared.age().is_some_and(|age| age >= aged), "{shared:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_in_redis_outside_the_prefix() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    for n in 0..5 {
        a.get(&format!("/{n}")).await.assert_status(200);
    }
    for key in entries(&redis, 5).await {
        let name = key.strip_prefix("or:shop:cart:e:").expect("the prefix");
        assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    }
    assert_redis_hit(&b.get("/3").await);
    for key in redis.keys("*").await {
        assert!(key.starts_with("or:shop:") || key.starts_with("or:{shop}:"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_stored_is_not_in_redis() {
    let origin = ten_minutes().await;
    let redis = RedisServer::start().await;
    origin.always("/no-store", Reply::cached("no-store", "x"));
    origin.always("/private", Reply::cached("private, max-age=600", "x"));
    origin.always("/cookie", Reply::cached("max-age=600", "x").header("Set-Cookie", "a=b"));
    origin.always("/broken", Reply::new(500).body("x"));
    let a = pod(&origin, redis.url()).start().await;
    for path in ["/no-store", "/private", "/cookie", "/broken"] {
        a.get(path).await;
    }
    let secret = [("Authorization", "Basic eDp5")];
    a.fetch("GET", "/authorized", &secret).await.assert_status(200);
    // Writes keep their order: what comes later is there, they are not.
    a.get("/last").await.assert_status(200);
    entries(&redis, 1).await;
}

/// `/v` in the language that was asked for.
async fn by_language() -> Origin {
    let origin = Origin::start().await;
    origin.on("/v", |r| {
        let language = r.header("accept-language").unwrap_or("none");
        Reply::cached("max-age=600", language).header("Vary", "Accept-Language")
    });
    origin
}

async fn in_language(proxy: &Proxy, language: &str) -> crate::support::Response {
    proxy.fetch("GET", "/v", &[("Accept-Language", language)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_variant_is_for_those_who_match_it() {
    let (origin, redis) = (by_language().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    in_language(&a, "en").await.assert_is(200, "en");
    stored(&a, 1).await;
    let other = in_language(&b, "de").await;
    other.assert_is(200, "de");
    assert!(!other.cache().has("hit"), "{other:#?}");
    assert!(lookups(&b, "vary-miss").await >= 1);
    let same = in_language(&b, "en").await;
    same.assert_is(200, "en");
    assert_redis_hit(&same);
    assert_eq!(origin.hits("/v"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_variant_of_another_pod_is_a_hit() {
    let (origin, redis) = (by_language().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    for (n, language) in ["en", "de", "fr"].into_iter().enumerate() {
        in_language(&a, language).await.assert_is(200, language);
        stored(&a, n + 1).await;
    }
    for language in ["fr", "en", "de"] {
        let shared = in_language(&b, language).await;
        shared.assert_is(200, language);
        assert_redis_hit(&shared);
    }
    for language in ["en", "de", "fr"] {
        let again = in_language(&b, language).await;
        again.assert_is(200, language);
        assert_memory_hit(&again);
    }
    assert_eq!(origin.hits("/v"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_range_and_head_requests_are_answered_from_redis() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("*", |_| Reply::cached("max-age=600", "0123456789").header("ETag", "\"v1\""));
    let (a, b) = pod(&origin, redis.url()).pair().await;
    for path in ["/match", "/other", "/range", "/head"] {
        a.get(path).await.assert_status(200);
    }
    stored(&a, 4).await;

    let unchanged = b.fetch("GET", "/match", &[("If-None-Match", "\"v1\"")]).await;
    unchanged.assert_status(304);
    assert_redis_hit(&unchanged);
    let changed = b.fetch("GET", "/other", &[("If-None-Match", "\"v0\"")]).await;
    changed.assert_is(200, "0123456789");
    assert_redis_hit(&changed);
    let part = b.fetch("GET", "/range", &[("Range", "bytes=2-4")]).await;
    part.assert_is(206, "234");
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_redis_hit(&part);
    let head = b.fetch("HEAD", "/head", &[]).await;
    head.assert_status(200);
    assert_eq!(head.header("content-length"), Some("10"));
    assert_redis_hit(&head);

    for path in ["/match", "/other", "/range", "/head"] {
        let whole = b.get(path).await;
        whole.assert_is(200, "0123456789");
        assert_memory_hit(&whole);
        assert_eq!(origin.hits(path), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_keeps_its_status_and_its_fields() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    let gone = Reply::new(410).header("Cache-Control", "max-age=600").body("gone");
    let odd = Reply::cached("max-age=600", [0, 255, 1, 254, 10, 13])
        .header("X-Twice", "one")
        .header("X-Twice", "two")
        .header("Surrogate-Key", "red blue")
        .header("X-Latin", "caf\u{e9}");
    origin.always("/gone", gone).always("/odd", odd);
    origin.always("/empty", Reply::cached("max-age=600", ""));
    let (a, b) = pod(&origin, redis.url()).pair().await;
    for (n, path) in ["/gone", "/odd", "/empty"].into_iter().enumerate() {
        let first = a.get(path).await;
        stored(&a, n + 1).await;
        let shared = b.get(path).await;
        assert_redis_hit(&shared);
        assert_eq!(shared.status, first.status);
        assert_eq!(shared.body, first.body);
        for name in ["x-twice", "surrogate-key", "x-latin", "content-length"] {
            assert_eq!(shared.head.all(name), first.head.all(name), "{path} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entries_are_all_found_again() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let (a, b) = pod(&origin, redis.url()).pair().await;
    for n in 0..200 {
        a.get(&format!("/{n}")).await.assert_status(200);
    }
    stored(&a, 200).await;
    let mut hits = 0;
    for n in 0..200 {
        let shared = b.get(&format!("/{n}")).await;
        shared.assert_is(200, format!("/{n} 1"));
        hits += usize::from(is_redis_hit(&shared));
    }
    assert_eq!(hits, 200);
    assert_eq!(redis.keys(ENTRIES).await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_say_whether_redis_is_up() {
    let (origin, mut redis) = (ten_minutes().await, RedisServer::start().await);
    let a = pod(&origin, redis.url()).start().await;
    let stats = async || {
        let response = a.admin("/stats").await;
        serde_json::from_slice::<serde_json::Value>(&response.body).expect("JSON")
    };
    assert_eq!(stats().await["redis"]["up"], true);
    assert_eq!(stats().await["purgeLog"]["scope"], "namespace");
    redis.kill();
    eventually("it is down", || async { (stats().await["redis"]["up"] == false).then_some(()) })
        .await;
    redis.restart().await;
    eventually("it is up", || async { (stats().await["redis"]["up"] == true).then_some(()) }).await;
}
