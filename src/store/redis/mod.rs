//! The shared tier: stored responses in Redis, for all pods of a workload or of a namespace.
//!
//! It must be invisible when it fails. A lookup has a deadline and a breaker before it; writes go
//! behind the response, through a bounded queue that drops rather than waits; a value that cannot
//! be believed is a miss. Nothing is ever deleted here by a purge: validity is the purge log's
//! affair, and what is void expires by itself.

mod claims;
mod counts;
mod hot;
mod names;
mod quota;
mod shard;
mod warm;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderName;
use moka::sync::Cache;
use outrigger_redis::{ConnectSettings, HealthSettings, Ring, Target, Topology};
use outrigger_semantics::Variant;
use tokio::time::Instant;

use crate::entry::Entry;
use crate::envelope::seal::Keys;
use crate::envelope::{Codec, Value};
use crate::lookup::{Lookup, Miss, ShareRules, Unavailable, Wanted};
use crate::tier::{Claim, Counted, Settled, Ticket, Tier, Usable};
pub use counts::{Counts, LookupResult, WriteResult};
use hot::HotKeys;
pub use names::Names;
use quota::Quota;
use shard::{Bytes, Shard, set_worker};
pub use warm::{WarmReport, WarmSettings};

/// Vary descriptors remembered.
const DESCRIPTORS_MAX: u64 = 65_536;
/// For how long: another pod may have found out that a response varies by something else.
const DESCRIPTOR_FOR: Duration = Duration::from_secs(30);

/// How the shared tier works.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// How to reach Redis.
    pub connect: ConnectSettings,
    /// Under which names it stores.
    pub names: Names,
    /// Longest time for a lookup.
    pub read_timeout: Duration,
    /// Longest time for a batch of writes.
    pub write_timeout: Duration,
    /// Bytes that may wait to be written.
    pub queue_bytes_max: usize,
    /// Bytes of the largest body.
    pub object_bytes_max: u64,
    /// Shorter freshness lifetimes stay local, milliseconds.
    pub ttl_ms_min: i64,
    /// Bytes of the values of the namespace; `None` for no bound but Redis' own.
    pub quota_bytes: Option<u64>,
    /// Writes and reads values.
    pub codec: Codec,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// First pause of an open breaker.
    pub breaker_open: Duration,
    /// Longest pause.
    pub breaker_open_max: Duration,
    /// Whether pods fetch one at a time, and for how long one waits for another.
    pub single_flight: Option<Duration>,
    /// Worker threads that will ask.
    pub workers: usize,
    /// Whether all pods have one purge log. Without it the positions of others mean nothing, and
    /// every purge of this pod counts against what they stored.
    pub shared_log: bool,
}

/// The shared tier.
pub struct RedisTier {
    settings: RedisSettings,
    shards: Vec<Arc<Shard>>,
    ring: Option<Ring>,
    keys: Option<Keys>,
    descriptors: Cache<u128, Arc<[HeaderName]>>,
    counts: Arc<Counts>,
    hot: HotKeys,
    quota: Option<Arc<Quota>>,
}

impl std::fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisTier").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl RedisTier {
    /// Starts the tier on the current runtime, which carries its writes, probes and housekeeping.
    pub fn start(settings: RedisSettings, keys: Option<Keys>) -> Arc<Self> {
        let targets = Target::all_of(settings.connect.clone());
        let ring = match &settings.connect.location.topology {
            Topology::Servers(servers) if servers.len() > 1 => Some(Ring::new(servers)),
            _ => None,
        };
        let health = HealthSettings {
            deadline: settings.read_timeout,
            failures_max: settings.breaker_failures,
            open: settings.breaker_open,
            open_max: settings.breaker_open_max,
        };
        let counts = Arc::new(Counts::default());
        let shards: Vec<Arc<Shard>> = targets
            .into_iter()
            .map(|target| Shard::start(target, health, settings.workers))
            .collect();
        if let Some(keys) = &keys {
            tokio::spawn(keys.clone().follow());
        }
        let ledger = settings.names.ledger();
        let home = Arc::clone(&shards[ring.as_ref().map_or(0, |ring| ring.place(&ledger))]);
        let quota = settings.quota_bytes.map(|bytes_max| Quota::start(bytes_max, ledger, home));
        let tier = Arc::new(RedisTier {
            hot: HotKeys::default(),
            descriptors: Cache::builder()
                .max_capacity(DESCRIPTORS_MAX)
                .time_to_live(DESCRIPTOR_FOR)
                .build(),
            settings,
            shards,
            ring,
            keys,
            counts,
            quota,
        });
        for shard in &tier.shards {
            write::spawn(&tier, shard);
        }
        tokio::spawn(hot::flush(Arc::downgrade(&tier)));
        tier
    }

    fn shard(&self, name: &[u8]) -> &Arc<Shard> {
        &self.shards[self.ring.as_ref().map_or(0, |ring| ring.place(name))]
    }

    /// The server that holds a name.
    pub fn target_of(&self, name: &[u8]) -> Arc<Target> {
        Arc::clone(self.shard(name).link.target())
    }

    /// Counts since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether all of Redis can be used.
    pub fn is_up(&self) -> bool {
        self.shards.iter().all(|shard| !shard.health.is_down())
    }

    /// Each server (or cluster) with whether it can be used, and the last reason why not.
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

    /// The names in use.
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
        // Redis may not be there; then lookups say so.
        let _ = tokio::time::timeout(self.settings.connect.timeouts.connect, attached).await;
    }

    /// Waits until what was offered so far has been written, or `limit` has passed.
    pub async fn flush(&self, limit: Duration) {
        let drained = async {
            while self.queue_bytes() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What is left then is lost, which costs a fetch and nothing else.
        let _ = tokio::time::timeout(limit, drained).await;
    }

    /// The value under a name.
    async fn value(&self, name: &[u8], until: Instant) -> Result<Read, Unavailable> {
        let limit = self.settings.codec.bytes_max();
        let asked = self.shard(name).get(name, limit, until, &self.counts).await?;
        let bytes = match asked {
            Bytes::Absent => return Ok(Read::Absent),
            Bytes::Foreign => {
                self.counts.lookup(LookupResult::Foreign);
                return Ok(Read::Refused);
            }
            Bytes::Found(bytes) => bytes,
        };
        let ring = self.keys.as_ref().map(Keys::ring);
        match self.settings.codec.read(bytes, name, ring.as_deref()) {
            Ok(Value::Entry(mut entry)) => {
                if !self.settings.shared_log {
                    (entry.born_seq, entry.seen_seq) = (0, 0);
                }
                Ok(Read::Value(Value::Entry(entry)))
            }
            Ok(value) => Ok(Read::Value(value)),
            Err(refused) => {
                self.counts.lookup(LookupResult::of_refused(refused));
                Ok(Read::Refused)
            }
        }
    }

    /// Whether an entry answers what was asked.
    fn checked(&self, entry: Entry, wanted: &Wanted<'_>) -> Lookup {
        let refused = if *entry.key != *wanted.key {
            LookupResult::Foreign
        } else if entry.rules_fingerprint != wanted.rules_fingerprint {
            LookupResult::Policy
        } else if entry.variant.matches(wanted.headers) {
            return Lookup::Hit(Arc::new(entry));
        } else {
            return Lookup::Miss(Miss::Variant);
        };
        self.counts.lookup(refused);
        Lookup::Miss(Miss::Refused)
    }

    async fn variant(&self, vary: &[HeaderName], wanted: &Wanted<'_>, until: Instant) -> Lookup {
        let variant = Variant::of_names(vary, wanted.headers);
        let name = self.settings.names.variant(wanted.scope, wanted.key, &variant);
        match self.value(&name, until).await {
            Ok(Read::Value(Value::Entry(entry))) => self.checked(*entry, wanted),
            Ok(Read::Refused) => Lookup::Miss(Miss::Refused),
            Ok(_) => Lookup::Miss(Miss::Variant),
            Err(why) => Lookup::Unavailable(why),
        }
    }
}

/// What reading a value brought.
enum Read {
    Value(Value),
    Absent,
    /// It is not believed; why has been counted.
    Refused,
}

#[async_trait]
impl Tier for RedisTier {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn deadline(&self) -> Duration {
        self.settings.read_timeout
    }

    async fn fetch(&self, wanted: Wanted<'_>) -> Lookup {
        let until = Instant::now() + self.settings.read_timeout;
        if let Some(vary) = self.descriptors.get(&wanted.digest) {
            return self.variant(&vary, &wanted, until).await;
        }
        let name = self.settings.names.entry(wanted.scope, wanted.digest);
        match self.value(&name, until).await {
            Ok(Read::Absent) => Lookup::Miss(Miss::Uri),
            Ok(Read::Refused) => Lookup::Miss(Miss::Refused),
            Ok(Read::Value(Value::Entry(entry))) => self.checked(*entry, &wanted),
            Ok(Read::Value(Value::Descriptor { key, names })) if key == wanted.key => {
                let vary: Arc<[HeaderName]> = names.into();
                self.descriptors.insert(wanted.digest, Arc::clone(&vary));
                self.variant(&vary, &wanted, until).await
            }
            Ok(Read::Value(Value::Descriptor { .. })) => {
                self.counts.lookup(LookupResult::Foreign);
                Lookup::Miss(Miss::Refused)
            }
            Err(why) => Lookup::Unavailable(why),
        }
    }

    fn offer(&self, entry: &Arc<Entry>, rules: &ShareRules) -> bool {
        if !rules.enabled || entry.part.is_some() {
            return false;
        }
        let bytes_max = rules
            .object_bytes_max
            .map_or(self.settings.object_bytes_max, |max| max.min(self.settings.object_bytes_max));
        if entry.body.len() as u64 > bytes_max {
            self.counts.write(WriteResult::TooLarge);
            return false;
        }
        let lifetime = entry.lifetimes.fresh_until.millis_since(entry.stored_at);
        if lifetime < rules.ttl_ms_min.unwrap_or(self.settings.ttl_ms_min) {
            self.counts.write(WriteResult::ShortLived);
            return false;
        }
        if !entry.variant.is_invariant() {
            let names: Vec<HeaderName> = entry.variant.names().cloned().collect();
            self.descriptors.insert(entry.digest, names.into());
        } else if self.descriptors.contains_key(&entry.digest) {
            self.descriptors.invalidate(&entry.digest);
        }
        let name = self.settings.names.of(rules.scope, entry);
        let queued = self.shard(&name).queue.put(name.clone(), Arc::clone(entry), rules.scope);
        if !queued {
            self.counts.write(WriteResult::Dropped);
        }
        queued
    }

    fn attach(&self, worker: usize) {
        set_worker(worker);
        self.shards.iter().for_each(|shard| shard.attach(worker));
    }

    fn note_hot(&self, entry: &Entry, rules: &ShareRules) {
        if rules.enabled {
            self.hot.note(self.settings.names.of(rules.scope, entry));
        }
    }

    fn count(&self, found: Counted) {
        self.counts.lookup(match found {
            Counted::Hit => LookupResult::Hit,
            Counted::Purged => LookupResult::Purged,
            Counted::Miss => LookupResult::Miss,
            Counted::VaryMiss => LookupResult::VaryMiss,
        });
    }

    async fn claim(&self, wanted: Wanted<'_>, usable: &Usable<'_>) -> Claim {
        match self.settings.single_flight {
            Some(limit) => self.claimed(wanted, limit, usable).await,
            None => Claim::Free,
        }
    }

    fn settle(&self, ticket: Ticket, how: Settled) {
        self.shard(&ticket.name).queue.settle(ticket, how);
    }
}
