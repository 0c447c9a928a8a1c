//! Which keys are hot: a sample of the hits, added up over all pods in Redis, so that a pod that
//! starts can ask for the hottest.

use std::collections::HashMap;
use std::sync::{Mutex, Weak};
use std::time::Duration;

use outrigger_redis::client;

use super::RedisTier;
use super::write::now_ms;

/// Names noted between two flushes.
const NAMES_MAX: usize = 4096;
/// How often they are added up.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// How long one sum goes on, milliseconds.
const BUCKET_MS: i64 = 300_000;
/// Names kept in one sum.
const KEPT_MAX: isize = 10_000;
/// Longest time for a flush.
const LIMIT: Duration = Duration::from_secs(1);

/// Hits noted since the last flush.
#[derive(Debug, Default)]
pub(super) struct HotKeys {
    hits: Mutex<HashMap<Vec<u8>, u32>>,
}

impl HotKeys {
    /// Notes a hit. A sample may be lost; a request never waits for another's.
    pub(super) fn note(&self, name: Vec<u8>) {
        let Ok(mut hits) = self.hits.try_lock() else { return };
        if hits.len() < NAMES_MAX || hits.contains_key(&name) {
            *hits.entry(name).or_default() += 1;
        }
    }

    fn take(&self) -> HashMap<Vec<u8>, u32> {
        std::mem::take(&mut self.hits.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// The sum that is under way.
pub(super) fn bucket() -> u64 {
    now_ms().div_euclid(BUCKET_MS).unsigned_abs()
}

/// Adds up for as long as the tier lives.
pub(super) async fn flush(tier: Weak<RedisTier>) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        let Some(tier) = tier.upgrade() else { return };
        let hits = tier.hot.take();
        if hits.is_empty() {
            continue;
        }
        let name = tier.settings.names.hot(bucket());
        let Ok((mut conn, _)) = tier.shard(&name).usable() else { continue };
        let mut pipeline = client::pipe();
        for (key, count) in hits {
            pipeline.cmd("ZINCRBY").arg(&name).arg(count).arg(key).ignore();
        }
        pipeline.cmd("ZREMRANGEBYRANK").arg(&name).arg(0).arg(-KEPT_MAX - 1).ignore();
        pipeline.cmd("PEXPIRE").arg(&name).arg(3 * BUCKET_MS).ignore();
        // A lost sample is no loss.
        let _ = tokio::time::timeout(LIMIT, pipeline.query_async::<()>(&mut conn)).await;
    }
}
