//! Pods: Outrigger processes before one origin that share a Redis, and what
//! the tests ask them and it.

use std::collections::BTreeMap;

use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Response, Setup, eventually, metric};

/// The entries of the namespace and workload that [`pod`] configures.
pub const ENTRIES: &str = "or:shop:cart:e:*";

/// So little memory that most lookups go on to Redis.
pub const FORGETFUL: &str = "memory: {bytesMax: 32KiB, objectBytesMax: 32KiB}";

/// What a pod starts with.
#[derive(Clone, Debug)]
pub struct Pod {
    upstream: String,
    section: BTreeMap<String, String>,
    policy: Option<String>,
    config: String,
}

/// A pod of workload `cart` in namespace `shop`. Its deadlines are generous: a
/// busy machine is no reason for a miss where a test expects a hit.
pub fn pod(origin: &Origin, url: impl Into<String>) -> Pod {
    let section = [("namespace", "shop"), ("workload", "cart"), ("readTimeoutMs", "1000")];
    let section = section.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pod = Pod {
        upstream: origin.url(),
        section: BTreeMap::from(section),
        policy: None,
        config: String::new(),
    };
    pod.set("url", &format!("\"{}\"", url.into())).set("connectTimeoutMs", "1000")
}

impl Pod {
    /// With this field of the `redis` section.
    pub fn set(mut self, field: &str, yaml: &str) -> Self {
        self.section.insert(field.to_owned(), yaml.to_owned());
        self
    }

    /// With this policy document.
    pub fn policy(mut self, yaml: &str) -> Self {
        self.policy = Some(yaml.to_owned());
        self
    }

    /// With one route for everything, and these fields of its `cache`.
    pub fn cache(self, yaml: &str) -> Self {
        self.policy(&format!("routes:\n  - name: r\n    cache: {yaml}\n"))
    }

    /// With more top-level sections in the bootstrap file.
    pub fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// With so little memory that most lookups go to Redis.
    pub fn forgetful(self) -> Self {
        self.config(FORGETFUL)
    }

    /// Starts it, and waits until its tier is up.
    pub async fn start(&self) -> Proxy {
        let proxy = self.start_anyhow().await;
        until_up(&proxy).await;
        proxy
    }

    /// Starts two of them.
    pub async fn pair(&self) -> (Proxy, Proxy) {
        tokio::join!(self.start(), self.start())
    }

    /// Starts it, whatever its tier does.
    pub async fn start_anyhow(&self) -> Proxy {
        let mut yaml = String::from("redis:\n");
        for (field, value) in &self.section {
            yaml.push_str(&format!("  {field}: {value}\n"));
        }
        yaml.push_str(&self.config);
        let setup = Setup::upstream(&self.upstream).config(&yaml);
        let setup = self.policy.iter().fold(setup, |setup, policy| setup.policy(policy));
        setup.start().await
    }
}

/// Waits until a pod can use its Redis. Each worker has a connection of its own,
/// so several lookups in a row must succeed; they ask for what nobody has.
pub async fn until_up(proxy: &Proxy) {
    const IN_A_ROW: usize = 8;
    eventually("the tier is up", || async {
        let up = metric(proxy, "outrigger_tier_up", &[("tier", "redis")]).await >= 1.0;
        // Without the purge log nobody knows whether a stored response is still good.
        let log = metric(proxy, "outrigger_purge_log_connected", &[]).await >= 1.0;
        if !up || !log {
            return None;
        }
        let before = unanswered(proxy).await;
        for _ in 0..IN_A_ROW {
            let only_cached = [("Cache-Control", "only-if-cached"), ("Host", "nobody.test")];
            proxy.fetch("GET", "/", &only_cached).await.assert_status(504);
        }
        (unanswered(proxy).await == before).then_some(())
    })
    .await;
}

/// How many lookups had no answer from Redis.
async fn unanswered(proxy: &Proxy) -> usize {
    let mut unanswered = 0;
    for result in ["error", "breaker", "deadline"] {
        unanswered += lookups(proxy, result).await;
    }
    unanswered
}

/// How many lookups in Redis had this result.
pub async fn lookups(proxy: &Proxy, result: &str) -> usize {
    counted(proxy, "outrigger_tier_lookups_total", result).await
}

/// How many values from Redis were not believed, for whatever reason.
pub async fn refused(proxy: &Proxy) -> usize {
    let mut refused = 0;
    for result in ["corrupt", "foreign", "seal", "unsealed"] {
        refused += lookups(proxy, result).await;
    }
    refused
}

/// How many writes to Redis had this result.
pub async fn writes(proxy: &Proxy, result: &str) -> usize {
    counted(proxy, "outrigger_tier_writes_total", result).await
}

/// Waits until so many writes of a pod have been stored.
pub async fn stored(proxy: &Proxy, n: usize) {
    eventually(&format!("{n} write(s) are stored"), || async {
        (writes(proxy, "stored").await >= n).then_some(())
    })
    .await;
}

async fn counted(proxy: &Proxy, name: &str, result: &str) -> usize {
    metric(proxy, name, &[("tier", "redis"), ("result", result)]).await as usize
}

/// Waits until so many entries are in Redis: their keys, sorted.
pub async fn entries(server: &RedisServer, n: usize) -> Vec<String> {
    eventually(&format!("{n} entries in Redis"), || async {
        let keys = server.keys(ENTRIES).await;
        (keys.len() == n).then_some(keys)
    })
    .await
}

/// Fetches a path through a pod and waits for its entry: the key in Redis.
pub async fn store_one(proxy: &Proxy, server: &RedisServer, path: &str) -> String {
    let before = server.keys(ENTRIES).await;
    proxy.get(path).await.assert_status(200);
    eventually(&format!("{path} is in Redis"), || async {
        server.keys(ENTRIES).await.into_iter().find(|key| !before.contains(key))
    })
    .await
}

/// Whether a response came from Redis.
pub fn is_redis_hit(response: &Response) -> bool {
    let status = response.cache();
    status.has("hit") && status.get("detail") == Some("redis-hit")
}

/// Panics unless a response came from Redis.
#[track_caller]
pub fn assert_redis_hit(response: &Response) {
    assert!(is_redis_hit(response), "expected a hit from Redis: {response:#?}");
}

/// Panics unless a response came from memory.
#[track_caller]
pub fn assert_memory_hit(response: &Response) {
    response.assert_hit();
    assert!(!is_redis_hit(response), "expected a hit from memory: {response:#?}");
}

/// How often a line is in the log.
pub fn lines(proxy: &Proxy, text: &str) -> usize {
    proxy.log().lines().filter(|line| line.contains(text)).count()
}
