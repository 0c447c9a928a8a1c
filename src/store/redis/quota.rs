//! A bound on the bytes that a namespace may store. Redis tells no such sum, so that the pods keep a
//! ledger: a hash with the bytes that expire in each minute. What has expired falls out by itself,
//! and a pod that dies takes nothing of the account with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
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
    account: Mutex<Account>,
}

/// What is known of the sum.
#[derive(Debug, Default)]
struct Account {
    /// The ledger as last read.
    ledger: i64,
    /// What this pod has changed and not yet written into the ledger, by span.
    changes: HashMap<i64, i64>,
    /// What is on its way to Redis.
    reserved: i64,
}

impl Account {
    fn sum(&self) -> i64 {
        self.ledger + self.changes.values().sum::<i64>() + self.reserved
    }
}

fn span_of(expires_ms: i64) -> i64 {
    expires_ms.div_euclid(SPAN_MS) + 1
}

impl Quota {
    /// Starts keeping the ledger under `name` on one server.
    pub(super) fn start(bytes_max: u64, name: Vec<u8>, home: Arc<Shard>) -> Arc<Self> {
        let quota = Arc::new(Quota { bytes_max, account: Mutex::default() });
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

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn used(&self) -> u64 {
        self.account().sum().max(0).unsigned_abs()
    }

    /// Takes room for a value, if there is any.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut account = self.account();
        let sum = account.sum().saturating_add(bytes);
        let fits = u64::try_from(sum).is_ok_and(|sum| sum <= self.bytes_max);
        if fits {
            account.reserved += bytes;
        }
        fits
    }

    /// Gives the room back: the value was not stored.
    pub(super) fn release(&self, bytes: usize) {
        self.account().reserved -= i64::try_from(bytes).unwrap_or(0);
    }

    /// Notes that a value of so many bytes, for which there was a reservation and which expires
    /// after so many milliseconds, took the place of another (zero bytes if there was none).
    pub(super) fn replaced(&self, now: i64, new: (usize, i64), old: (i64, i64)) {
        let (bytes, ms) = new;
        let bytes = i64::try_from(bytes).unwrap_or(0);
        let (old_bytes, old_ms) = old;
        let mut account = self.account();
        account.reserved -= bytes;
        *account.changes.entry(span_of(now + ms)).or_default() += bytes;
        if old_bytes > 0 && old_ms > 0 {
            *account.changes.entry(span_of(now + old_ms)).or_default() -= old_bytes;
        }
    }

    /// Takes a new reading of the ledger, into which these changes have gone.
    fn written(&self, changes: &HashMap<i64, i64>, ledger: i64) {
        let mut account = self.account();
        account.ledger = ledger;
        for (span, change) in changes {
            *account.changes.entry(*span).or_default() -= change;
        }
        account.changes.retain(|_, change| *change != 0);
    }

    /// Writes what has changed and reads the sum.
    async fn balance(&self, name: &[u8], home: &Shard) {
        if home.health.is_down() {
            return;
        }
        let Some(mut conn) = home.link.conn() else { return };
        let changes = self.account().changes.clone();
        let mut pipeline = client::pipe();
        for (span, change) in changes.iter().filter(|(_, change)| **change != 0) {
            pipeline.cmd("HINCRBY").arg(name).arg(span).arg(change).ignore();
        }
        pipeline.cmd("PEXPIRE").arg(name).arg(LEDGER_MS).ignore();
        pipeline.cmd("HGETALL").arg(name);
        let asked = pipeline.query_async::<(HashMap<i64, i64>,)>(&mut conn);
        // What was not written is written the next time; after a time-out perhaps twice, which
        // expires like the rest.
        let Ok(Ok((ledger,))) = tokio::time::timeout(LIMIT, asked).await else { return };
        let now = now_ms().div_euclid(SPAN_MS);
        let (live, past): (Vec<_>, Vec<_>) = ledger.into_iter().partition(|(span, _)| *span > now);
        self.written(&changes, live.iter().map(|(_, bytes)| *bytes).sum());
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
