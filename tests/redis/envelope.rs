//! What is in a value, and what happens when it is not what it should be.

use crate::pods::{
    ENTRIES, Pod, assert_redis_hit, entries, is_redis_hit, lookups, pod, refused, store_one, stored,
};
use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Reply, eventually};

/// A body that compresses well.
fn text() -> String {
    "All work and no play makes a dull cache. ".repeat(1600)
}

async fn long_texts() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |_| Reply::cached("max-age=600", text()));
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_reads_every_compression() {
    let (origin, redis) = (long_texts().await, RedisServer::start().await);
    let reader = pod(&origin, redis.url());
    let zstd = reader.clone().set("compression", "{algorithm: zstd}").start().await;
    let plain = reader.clone().set("compression", "{algorithm: none}").start().await;
    for algorithm in ["lz4", "snappy", "zstd", "none"] {
        let compression = format!("{{algorithm: {algorithm}}}");
        let writer = reader.clone().set("compression", &compression).start().await;
        let path = format!("/{algorithm}");
        let key = store_one(&writer, &redis, &path).await;
        let size = redis.bytes(&key).await.expect("a value").len();
        if algorithm == "none" {
            assert!(size > text().len(), "{size}");
        } else {
            assert!(size < text().len() / 4, "{algorithm}: {size}");
        }
        for other in [&zstd, &plain] {
            let shared = other.get(&path).await;
            shared.assert_is(200, text());
            assert_redis_hit(&shared);
        }
        assert_eq!(origin.hits(&path), 1, "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_incompressible_bodies_come_back_as_they_were() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    // Bytes without a pattern that a compressor would find.
    let noise: Vec<u8> = (0_u32..40_000).map(|n| noise_at(u64::from(n))).collect();
    let body = noise.clone();
    origin.on("/noise", move |_| Reply::cached("max-age=600", &body));
    origin.always("/small", Reply::cached("max-age=600", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    let pods = pod(&origin, redis.url()).set("compression", "{algorithm: lz4, minBytes: 1KiB}");
    let (a, b) = pods.pair().await;
    let key = store_one(&a, &redis, "/noise").await;
    let size = redis.bytes(&key).await.expect("a value").len();
    assert!(size < noise.len() + 1024, "{size}");
    store_one(&a, &redis, "/small").await;
    let shared = b.get("/noise").await;
    assert_redis_hit(&shared);
    assert!(shared.body == noise, "the bytes differ");
    let shared = b.get("/small").await;
    shared.assert_is(200, "a".repeat(32));
    assert_redis_hit(&shared);
}

/// One byte of a fixed sequence without a pattern.
fn noise_at(n: u64) -> u8 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).to_le_bytes()[3]
}

/// An origin that says which path it was, and two pods.
async fn two_pods(redis: &RedisServer, setup: impl Fn(Pod) -> Pod) -> (Origin, Proxy, Proxy) {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", body_of(r.path())));
    let (a, b) = setup(pod(&origin, redis.url())).pair().await;
    (origin, a, b)
}

fn body_of(path: &str) -> String {
    format!("the body of {path}. ").repeat(200)
}

/// Asks for a path whose value was tampered with: the client has its response
/// from the upstream, and the value is counted.
async fn is_refused(proxy: &Proxy, path: &str, what: &str) {
    let before = refused(proxy).await;
    let response = proxy.get(path).await;
    assert_eq!(response.text(), body_of(path), "{what}");
    response.assert_status(200);
    assert!(!response.cache().has("hit"), "{what}: {:#?}", response.head);
    assert_eq!(refused(proxy).await, before + 1, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_under_the_key_of_another_url_is_a_miss() {
    let redis = RedisServer::start().await;
    let (_origin, a, b) = two_pods(&redis, |pod| pod).await;
    let one = store_one(&a, &redis, "/one").await;
    let two = store_one(&a, &redis, "/two").await;
    assert_eq!(redis.cli(&["COPY", &one, &two, "REPLACE"]).await, "1");
    is_refused(&b, "/two", "a copy").await;
    // B's own value takes its place.
    eventually("the value is right again", || async {
        (redis.bytes(&one).await != redis.bytes(&two).await).then_some(())
    })
    .await;
    let three = store_one(&a, &redis, "/three").await;
    assert_eq!(redis.cli(&["RENAME", &one, &three]).await, "OK");
    is_refused(&b, "/three", "a renamed one").await;
}

/// Ways to spoil a value.
fn spoiled(value: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        (String::from("zeros"), vec![0; value.len()]),
        (String::from("ones"), vec![255; 64]),
        (String::from("noise"), (0..5000).map(noise_at).collect()),
        (String::from("text"), b"hello".to_vec()),
        (String::from("longer"), [value, b"more"].concat()),
        (String::from("twice"), [value, value].concat()),
    ];
    for n in 1..16 {
        let length = value.len() * n / 16;
        all.push((format!("cut at {length}"), value[..length].to_vec()));
    }
    all.push((String::from("one byte short"), value[..value.len() - 1].to_vec()));
    // Every byte of the head, and a sample of the rest.
    let head = 0..value.len().min(96);
    let rest = (96..value.len()).step_by(value.len().div_ceil(48).max(1));
    for at in head.chain(rest) {
        let mut bytes = value.to_vec();
        bytes[at] ^= 1 << (at % 8);
        all.push((format!("bit {} of byte {at} of {}", at % 8, value.len()), bytes));
    }
    all
}

/// Stores, spoils and asks, for every way to spoil a value.
async fn spoiled_values_are_refused(setup: impl Fn(Pod) -> Pod) {
    let redis = RedisServer::start().await;
    let (_origin, a, b) = two_pods(&redis, setup).await;
    let probe = store_one(&a, &redis, "/probe").await;
    let ways = spoiled(&redis.bytes(&probe).await.expect("a value")).len();
    for n in 0..ways {
        let path = format!("/{n}");
        let key = store_one(&a, &redis, &path).await;
        let value = redis.bytes(&key).await.expect("a value");
        // Two values may differ in length by a few bytes.
        let Some((what, bytes)) = spoiled(&value).into_iter().nth(n) else { continue };
        redis.ask(&[b"SET".as_slice(), key.as_bytes(), &bytes]).await.expect("it is set");
        is_refused(&b, &path, &what).await;
    }
    // Still alive, and still sharing.
    assert_redis_hit(&b.get("/probe").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_value_is_a_miss() {
    spoiled_values_are_refused(|pod| pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_value_without_compression_is_a_miss() {
    spoiled_values_are_refused(|pod| pod.set("compression", "{algorithm: none}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_sealed_value_is_a_miss() {
    let keys = crate::sealing::Keys::new(&[1]);
    spoiled_values_are_refused(|pod| pod.set("seal", &keys.section())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_is_a_miss_and_is_replaced() {
    let redis = RedisServer::start().await;
    let (_origin, a, b) = two_pods(&redis, |pod| pod).await;
    for (n, command) in [
        ["RPUSH", "KEY", "x", ""].as_slice(),
        &["HSET", "KEY", "x", "y"],
        &["SADD", "KEY", "x", ""],
        &["ZADD", "KEY", "1", "x"],
        &["XADD", "KEY", "*", "f", "v"],
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{n}");
        let key = store_one(&a, &redis, &path).await;
        redis.cli(&["DEL", &key]).await;
        let words = command.iter().map(|word| if *word == "KEY" { key.as_str() } else { word });
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let answer = redis.cli(&words).await;
        assert!(!answer.starts_with("(error)"), "{answer}");
        let response = b.get(&path).await;
        response.assert_is(200, body_of(&path));
        assert!(!response.cache().has("hit"), "{command:?}: {:#?}", response.head);
        eventually("B's value takes its place", || async {
            (redis.cli(&["TYPE", &key]).await == "string").then_some(())
        })
        .await;
    }
    let counted = refused(&b).await + lookups(&b, "error").await;
    assert_eq!(counted, 5, "each is counted");
    // A wrong type is no reason to give up on the server.
    store_one(&a, &redis, "/last").await;
    assert_redis_hit(&b.get("/last").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_as_good_as_none() {
    let redis = RedisServer::start().await;
    let (origin, a, b) = two_pods(&redis, |pod| pod).await;
    let key = store_one(&a, &redis, "/empty").await;
    assert_eq!(redis.cli(&["SET", &key, ""]).await, "OK");
    let response = b.get("/empty").await;
    response.assert_is(200, body_of("/empty"));
    assert!(!response.cache().has("hit"), "{:#?}", response.head);
    assert_eq!(origin.hits("/empty"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_does_not_fill_the_memory_of_a_pod() {
    const HUGE: usize = 128 << 20;
    let redis = RedisServer::start().await;
    let (_origin, a, b) = two_pods(&redis, |pod| pod).await;
    let mut keys = Vec::new();
    for n in 0..4 {
        keys.push(store_one(&a, &redis, &format!("/{n}")).await);
    }
    let before = b.resident_bytes();
    for (n, key) in keys.iter().enumerate() {
        let end = (HUGE - 1).to_string();
        assert_eq!(redis.cli(&["SETRANGE", key, &end, "x"]).await, HUGE.to_string());
        let response = b.get(&format!("/{n}")).await;
        response.assert_is(200, body_of(&format!("/{n}")));
        assert!(!response.cache().has("hit"), "{:#?}", response.head);
        let grown = b.resident_bytes().saturating_sub(before);
        assert!(grown < (HUGE / 2) as u64, "grew by {} MiB", grown >> 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_another_host_is_another_value() {
    let redis = RedisServer::start().await;
    let (origin, a, b) = two_pods(&redis, |pod| pod).await;
    a.fetch("GET", "/x", &[("Host", "one.test")]).await.assert_status(200);
    stored(&a, 1).await;
    let other = b.fetch("GET", "/x", &[("Host", "two.test")]).await;
    assert!(!is_redis_hit(&other), "{other:#?}");
    let same = b.fetch("GET", "/x", &[("Host", "one.test")]).await;
    assert_redis_hit(&same);
    assert_eq!(origin.hits("/x"), 2);
    assert_eq!(entries(&redis, 2).await.len(), redis.keys(ENTRIES).await.len());
}
