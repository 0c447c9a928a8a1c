//! A bound on the bytes that a namespace may store. Redis tells no such sum, so that the pods keep a
//! ledger: a hash with the bytes that expire in each minute. What has expired falls out by itself,
//! and a pod that dies takes nothing of the account with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_redis::client;

use super::shard::Shard;
use super::write::now_ms;

/// Width of a field of the ledger, milliseconds.
const SPAN_MS: i64 = 60_000;
/// How often the ledger is written and read.
const EVERY: Duration = Duration::from_millis(500);
/// Longest time for that.
const LIMIT: Duration = Duration::from_secs(1);
/// The ledger outlives the longest expiry of an entry.
const LEDGER_MS: i64 = 2 * 86_400_000;

/// The quota of a namespace.
#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    /// The sum as of the last reading, and what this pod has added since.
    used: AtomicU64,
    deltas: Mutex<HashMap<i64, i64>>,
}

fn span_of(expires_ms: i64) -> i64 {
    expires_ms.div_euclid(SPAN_MS) + 1
}

impl Quota {
    /// Starts keeping the ledger under `name` on one server.
    pub(super) fn start(bytes_max: u64, name: Vec<u8>, home: Arc<Shard>) -> Arc<Self> {
        let quota =
            Arc::new(Quota { bytes_max, used: AtomicU64::new(0), deltas: Mutex::default() });
        let kept = Arc::downgrade(&quota);
        tokio::spawn(async move {
            while let Some(quota) = kept.upgrade() {
                quota.balance(&name, &home).await;
                drop(quota);
                tokio::time::sleep(EVERY).await;
            }
        });
        quota
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes as u64) <= self.bytes_max
    }

    /// Notes that a value of so many bytes, which expires after so many milliseconds, took the
    /// place of another (zero bytes if there was none).
    pub(super) fn replaced(&self, now: i64, new: (usize, i64), old: (i64, i64)) {
        let mut deltas = self.deltas.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (bytes, ms) = new;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        *deltas.entry(span_of(now + ms)).or_default() += bytes;
        self.used.fetch_add(bytes.unsigned_abs(), Ordering::Relaxed);
        let (old_bytes, old_ms) = old;
        if old_bytes > 0 && old_ms > 0 {
            *deltas.entry(span_of(now + old_ms)).or_default() -= old_bytes;
        }
    }

    /// Writes what has changed and reads the sum.
    async fn balance(&self, name: &[u8], home: &Shard) {
        if home.health.is_down() {
            return;
        }
        let Some(mut conn) = home.link.conn() else { return };
        let deltas = std::mem::take(
            &mut *self.deltas.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
        let mut pipeline = client::pipe();
        for (span, delta) in deltas.iter().filter(|(_, delta)| **delta != 0) {
            pipeline.cmd("HINCRBY").arg(name).arg(span).arg(delta).ignore();
        }
        pipeline.cmd("PEXPIRE").arg(name).arg(LEDGER_MS).ignore();
        pipeline.cmd("HGETALL").arg(name);
        let asked = pipeline.query_async::<(HashMap<i64, i64>,)>(&mut conn);
        let Ok(Ok((ledger,))) = tokio::time::timeout(LIMIT, asked).await else { return };
        let now = now_ms().div_euclid(SPAN_MS);
        let (live, past): (Vec<_>, Vec<_>) = ledger.into_iter().partition(|(span, _)| *span > now);
        let sum: i64 = live.iter().map(|(_, bytes)| *bytes).sum();
        self.used.store(sum.max(0).unsigned_abs(), Ordering::Relaxed);
        if !past.is_empty() {
            let mut cmd = client::cmd("HDEL");
            cmd.arg(name);
            past.iter().for_each(|(span, _)| {
                cmd.arg(span);
            });
            let swept = cmd.query_async::<client::Value>(&mut conn);
            // Another pod, or the next round, will do it.
            let _ = tokio::time::timeout(LIMIT, swept).await;
        }
    }
}
