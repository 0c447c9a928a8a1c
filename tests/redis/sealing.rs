//! Sealed values: nobody without the key reads or forges them, and keys change
//! while the pods run.

use std::fs;

use tempfile::TempDir;

use crate::pods::{assert_redis_hit, is_redis_hit, pod, refused, store_one, stored};
use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Reply, eventually};

/// A folder of keys.
pub struct Keys(TempDir);

impl Keys {
    /// With the keys of these numbers.
    pub fn new(numbers: &[u8]) -> Self {
        let keys = Self(TempDir::new().expect("a temporary folder"));
        for number in numbers {
            keys.add(*number);
        }
        keys
    }

    /// Adds a key; the key of a number is the same in every folder.
    pub fn add(&self, number: u8) {
        self.write(&format!("{number}.key"), &[number; 32]);
    }

    /// Puts a file in place at once, as a secret volume does.
    fn write(&self, name: &str, bytes: &[u8]) {
        let new = self.0.path().join("new");
        fs::write(&new, bytes).expect("a key file");
        fs::rename(new, self.0.path().join(name)).expect("in place");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(name)).expect("removed");
    }

    /// The `seal` section.
    pub fn section(&self) -> String {
        format!("{{directory: {}}}", self.0.path().display())
    }
}

const SECRET: &str = "the quick brown fox keeps a secret";

/// Every path has a cacheable body with the secret in it.
async fn secrets() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| {
        Reply::cached("max-age=600", format!("{SECRET} {}", r.path())).header("X-Mark", SECRET)
    });
    origin
}

fn holds(value: &[u8], text: &str) -> bool {
    value.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_is_not_readable_in_redis() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let keys = Keys::new(&[1]);
    let pods = pod(&origin, redis.url()).set("compression", "{algorithm: none}");
    let plain = pods.start().await;
    let key = store_one(&plain, &redis, "/plain").await;
    assert!(holds(&redis.bytes(&key).await.expect("a value"), SECRET), "the test would see it");

    let (a, b) = pods.set("seal", &keys.section()).pair().await;
    let key = store_one(&a, &redis, "/sealed").await;
    let value = redis.bytes(&key).await.expect("a value");
    for text in [SECRET, "quick brown", "/sealed", "X-Mark", "x-mark", "max-age"] {
        assert!(!holds(&value, text), "{text:?} is readable");
    }
    let shared = b.get("/sealed").await;
    shared.assert_is(200, format!("{SECRET} /sealed"));
    assert_redis_hit(&shared);
    assert_eq!(shared.header("x-mark"), Some(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_response_is_sealed_differently_each_time() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let keys = Keys::new(&[1]);
    let a = pod(&origin, redis.url()).set("seal", &keys.section()).start().await;
    let key = store_one(&a, &redis, "/x").await;
    let first = redis.bytes(&key).await.expect("a value");
    a.purge(serde_json::json!({"url": "http://shop.test/x"})).await;
    let second = eventually("it is stored again", || async {
        a.get("/x").await.assert_status(200);
        redis.bytes(&key).await.filter(|value| *value != first)
    })
    .await;
    // A nonce that came twice would show in the first bytes of the body.
    let same = first.iter().zip(&second).rev().take(32).filter(|(a, b)| a == b).count();
    assert!(same < 8, "{same} of the last 32 bytes are the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_value_under_the_key_of_another_url_is_a_miss() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let keys = Keys::new(&[1]);
    let (a, b) = pod(&origin, redis.url()).set("seal", &keys.section()).pair().await;
    let one = store_one(&a, &redis, "/one").await;
    let two = store_one(&a, &redis, "/two").await;
    assert_eq!(redis.cli(&["COPY", &one, &two, "REPLACE"]).await, "1");
    let response = b.get("/two").await;
    response.assert_is(200, format!("{SECRET} /two"));
    assert!(!response.cache().has("hit"), "{response:#?}");
    assert_eq!(refused(&b).await, 1);
    assert_eq!(origin.hits("/two"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_sealed_is_refused_where_sealing_is_configured() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let keys = Keys::new(&[1]);
    let pods = pod(&origin, redis.url());
    let sealing = pods.clone().set("seal", &keys.section());
    let (plain, sealed) = tokio::join!(pods.start(), sealing.start());
    plain.get("/x").await;
    stored(&plain, 1).await;
    let response = sealed.get("/x").await;
    response.assert_is(200, format!("{SECRET} /x"));
    assert!(!response.cache().has("hit"), "{response:#?}");
    assert_eq!(refused(&sealed).await, 1);

    // And the other way: without the key a sealed value is of no use.
    sealed.get("/y").await;
    stored(&sealed, 2).await;
    let response = plain.get("/y").await;
    response.assert_is(200, format!("{SECRET} /y"));
    assert!(!response.cache().has("hit"), "{response:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_a_miss() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let (one, two, odd) = (Keys::new(&[1]), Keys::new(&[2]), Keys::new(&[]));
    // The same number, other bytes.
    odd.write("1.key", &[9; 32]);
    let start =
        async |keys: &Keys| pod(&origin, redis.url()).set("seal", &keys.section()).start().await;
    let (a, b, c) = tokio::join!(start(&one), start(&two), start(&odd));
    for (other, path) in [(&b, "/b"), (&c, "/c")] {
        store_one(&a, &redis, path).await;
        let response = other.get(path).await;
        response.assert_is(200, format!("{SECRET} {path}"));
        assert!(!response.cache().has("hit"), "{response:#?}");
        assert_eq!(refused(other).await, 1);
    }
}

/// Asks `through` for new paths until `to` finds one of them in Redis.
async fn until_read(through: &Proxy, to: &Proxy, what: &str) -> String {
    let n = std::sync::atomic::AtomicUsize::new(0);
    eventually(what, || async {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = format!("/{}/{n}", what.replace(' ', "-"));
        let before = crate::pods::writes(through, "stored").await;
        through.get(&path).await.assert_status(200);
        stored(through, before + 1).await;
        is_redis_hit(&to.get(&path).await).then_some(path)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_the_pods_run() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let (keys, new) = (Keys::new(&[1]), Keys::new(&[2]));
    let both = pod(&origin, redis.url()).set("seal", &keys.section());
    let only_new = pod(&origin, redis.url()).set("seal", &new.section());
    let (a, b, c) = tokio::join!(both.start(), both.start(), only_new.start());
    a.get("/old").await.assert_status(200);
    stored(&a, 1).await;
    assert!(!is_redis_hit(&c.get("/unread").await));

    keys.add(2);
    let by_a = until_read(&a, &c, "A seals with key 2").await;
    until_read(&b, &c, "B seals with key 2").await;
    assert_redis_hit(&b.get(&by_a).await);
    // What key 1 has sealed is still read.
    let shared = b.get("/old").await;
    shared.assert_is(200, format!("{SECRET} /old"));
    assert_redis_hit(&shared);

    // The file `active` chooses an older one.
    let old = Keys::new(&[1]);
    let only_old = pod(&origin, redis.url()).set("seal", &old.section()).start().await;
    keys.write("active", b"1\n");
    until_read(&a, &only_old, "A seals with key 1").await;
    keys.remove("active");
    until_read(&a, &c, "A seals with key 2 again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_raw_hexadecimal_or_base64() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let (raw, hex, base64) = (Keys::new(&[]), Keys::new(&[]), Keys::new(&[]));
    raw.write("1.key", &[0xab; 32]);
    hex.write("1.key", format!("{}\n", "ab".repeat(32)).as_bytes());
    base64.write("1.key", b"q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n");
    let start =
        async |keys: &Keys| pod(&origin, redis.url()).set("seal", &keys.section()).start().await;
    let (a, b, c) = tokio::join!(start(&raw), start(&hex), start(&base64));
    a.get("/x").await;
    stored(&a, 1).await;
    assert_redis_hit(&b.get("/x").await);
    assert_redis_hit(&c.get("/x").await);
    assert_eq!(origin.hits("/x"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_file_leaves_the_keys_that_are_in_force() {
    let (origin, redis) = (secrets().await, RedisServer::start().await);
    let keys = Keys::new(&[1]);
    let (a, b) = pod(&origin, redis.url()).set("seal", &keys.section()).pair().await;
    keys.write("2.key", b"too short");
    eventually("the log says so", || async { a.log().contains("2.key").then_some(()) }).await;
    until_read(&a, &b, "sharing goes on").await;
}
