//! The Redis tier: stored responses in Redis, for all pods of a workload or of a namespace.
//!
//! Requests must not notice when it fails. A lookup has a deadline, and a breaker that refuses it
//! at once while Redis is down. Writes go behind the response, through a bounded queue that drops
//! rather than waits. A damaged or foreign value counts as a miss.
//!
//! Purges delete nothing here: the purge log decides whether a value is still valid when it is read,
//! and purged values expire by themselves.

mod claims;
mod clock;
mod commands;
mod counts;
mod hot;
mod hot_flush;
mod names;
mod queue;
mod quota;
mod read;
mod shard;
mod tier;
mod warm;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderName;
use moka::sync::Cache;
use outrigger_redis::{HealthSettings, Ring, Target, Topology};

use crate::entry::Entry;
use crate::envelope::seal::Keys;
use crate::lookup::{Lookup, ShareRules, Wanted};
use crate::tier::{Claim, ClaimTicket, Counted, OnOvertaken, Settled, Tier, Usable};
pub use counts::{Counts, LookupResult, WriteResult};
use hot::HotKeys;
pub use names::{NameError, Names};
use quota::Quota;
use shard::{Shard, set_worker};
pub use tier::{RedisSettings, RedisTier};
pub use warm::{WarmReport, WarmSettings};

/// Number of keys whose Vary descriptor is remembered.
const DESCRIPTORS_MAX: u64 = 65_536;
/// How long a descriptor is remembered: the response may vary by other fields meanwhile.
const DESCRIPTOR_FOR: Duration = Duration::from_secs(30);

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
            on_overtaken: OnceLock::new(),
        });
        for shard in &tier.shards {
            write::spawn(&tier, shard);
        }
        tokio::spawn(hot_flush::run(Arc::downgrade(&tier)));
        tier
    }
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
        self.find(wanted).await
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
        // What ends the use of older copies is written whatever its own lifetime.
        if !entry.lifetimes.invalid
            && lifetime < rules.ttl_ms_min.unwrap_or(self.settings.ttl_ms_min)
        {
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

    fn on_overtaken(&self, tell: OnOvertaken) {
        // Set once, when the process starts.
        let _ = self.on_overtaken.set(tell);
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

    fn settle(&self, ticket: ClaimTicket, how: Settled) {
        self.shard(&ticket.name).queue.settle(ticket, how);
    }
}
