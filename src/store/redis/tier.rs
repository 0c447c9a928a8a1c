//! The tier's parts and settings, and what it says of itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use moka::sync::Cache;
use outrigger_redis::{ConnectSettings, Ring, Target};

use super::counts::Counts;
use super::hot::HotKeys;
use super::names::Names;
use super::quota::Quota;
use super::shard::Shard;
use crate::entry::Entry;
use crate::envelope::Codec;
use crate::envelope::seal::Keys;
use crate::tier::OnOvertaken;

/// How the Redis tier works.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// How to reach Redis.
    pub connect: ConnectSettings,
    /// Under which names it stores values.
    pub names: Names,
    /// Longest time for a lookup.
    pub read_timeout: Duration,
    /// Longest time for a batch of writes, which no request waits for.
    pub write_timeout: Duration,
    /// Bytes that may wait to be written to one server; what comes on top is dropped.
    pub queue_bytes_max: usize,
    /// Bytes of the largest body that is written.
    pub object_bytes_max: u64,
    /// Responses with a shorter freshness lifetime are not written, milliseconds.
    pub ttl_ms_min: i64,
    /// Bytes that the values of the namespace may take; `None` for no bound but Redis' own.
    pub quota_bytes: Option<u64>,
    /// Format of the values.
    pub codec: Codec,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// First pause between probes of an open breaker.
    pub breaker_open: Duration,
    /// Longest pause between probes.
    pub breaker_open_max: Duration,
    /// How long a pod waits for another one that fetches the same; `None` lets every pod fetch.
    pub single_flight: Option<Duration>,
    /// Number of worker threads that will ask.
    pub workers: usize,
    /// Whether all pods have one purge log. Without it the positions of other pods mean nothing, and
    /// every purge of this pod counts against what they have stored.
    pub shared_log: bool,
}

/// Stored responses in Redis, for all pods of a workload or of a namespace.
pub struct RedisTier {
    pub(super) settings: RedisSettings,
    /// One for each server.
    pub(super) shards: Vec<Arc<Shard>>,
    /// Which server holds a name, where there are several.
    pub(super) ring: Option<Ring>,
    /// Sealing keys; `None` writes values in the clear.
    pub(super) keys: Option<Keys>,
    /// The fields by which keys vary, by digest of the key.
    pub(super) descriptors: Cache<u128, Arc<[HeaderName]>>,
    pub(super) counts: Arc<Counts>,
    pub(super) hot: HotKeys,
    pub(super) quota: Option<Arc<Quota>>,
    /// Told of each entry that was not written since a more recent one is there.
    pub(super) on_overtaken: OnceLock<OnOvertaken>,
}

impl std::fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisTier").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl RedisTier {
    /// Tells the caller that an entry was not written since a more recent one is there.
    pub(super) fn overtaken(&self, entry: &Entry) {
        if let Some(tell) = self.on_overtaken.get() {
            tell(entry);
        }
    }

    /// The server that holds a name, for the tier itself.
    pub(super) fn shard(&self, name: &[u8]) -> &Arc<Shard> {
        &self.shards[self.ring.as_ref().map_or(0, |ring| ring.place(name))]
    }

    /// The server that holds a name, for others who store something in the same Redis.
    pub fn target_of(&self, name: &[u8]) -> Arc<Target> {
        Arc::clone(self.shard(name).link.target())
    }

    /// Lookups and writes since the start, by result.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether all of Redis can be used.
    pub fn is_up(&self) -> bool {
        self.shards.iter().all(|shard| !shard.health.is_down())
    }

    /// Each server (or cluster): its name, whether it can be used, and the last reason why not.
    pub fn servers(&self) -> Vec<(String, bool, String)> {
        let of = |shard: &Arc<Shard>| {
            let name = shard.link.target().name().to_owned();
            (name, !shard.health.is_down(), shard.health.reason())
        };
        self.shards.iter().map(of).collect()
    }

    /// Bytes waiting to be written.
    pub fn queue_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.queue.bytes()).sum()
    }

    /// Bytes of the namespace's values as far as known, and their bound; `None` without a quota.
    pub fn quota(&self) -> Option<(u64, u64)> {
        self.quota.as_ref().map(|quota| (quota.used(), quota.bytes_max()))
    }

    /// The names under which values are stored.
    pub fn names(&self) -> &Names {
        &self.settings.names
    }

    /// Waits until every worker has its connections, at most as long as opening one may take.
    pub async fn until_attached(&self) {
        let attached = async {
            while !self.shards.iter().all(|shard| shard.is_attached()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // If Redis is not there, lookups will say so.
        let _ = tokio::time::timeout(self.settings.connect.connect_timeout, attached).await;
    }

    /// Waits until what was offered so far has been written, or `limit` has passed.
    pub async fn flush(&self, limit: Duration) {
        let drained = async {
            while self.queue_bytes() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Writes that are lost then cost a fetch later and nothing else.
        let _ = tokio::time::timeout(limit, drained).await;
    }
}
