//! Warm start: a pod that starts loads the hottest keys, bounded in number, bytes, rate and time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use outrigger_redis::client;
use tokio::time::Instant;

use super::{Read, RedisTier, hot};
use crate::entry::Entry;
use crate::envelope::Value;
use crate::lookup::ShareScope;

/// Names asked for between two looks at the clock.
const STEP: usize = 16;
/// How long the list of names may take.
const LIST_LIMIT: Duration = Duration::from_millis(500);

/// Bounds of a warm start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmSettings {
    /// Keys.
    pub keys_max: usize,
    /// Bytes of bodies.
    pub bytes_max: u64,
    /// Keys in a second.
    pub keys_per_second: u32,
    /// Time in all.
    pub timeout: Duration,
}

/// What a warm start brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmReport {
    /// Names that were hot.
    pub listed: usize,
    /// Entries loaded.
    pub loaded: usize,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl RedisTier {
    /// Loads the hottest entries and hands each to `keep`, until one of the bounds is reached.
    ///
    /// `keep` is told who shares the entry; only it can tell whether the entry is still valid and
    /// was stored by the rules in force.
    pub async fn warm(
        &self,
        bounds: WarmSettings,
        keep: impl Fn(Arc<Entry>, ShareScope) -> bool,
    ) -> WarmReport {
        let until = Instant::now() + bounds.timeout;
        let mut report = WarmReport::default();
        while !self.is_up() {
            if Instant::now() >= until {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let names = self.hottest(bounds.keys_max).await;
        report.listed = names.len();
        let pause = Duration::from_secs_f64(STEP as f64 / f64::from(bounds.keys_per_second.max(1)));
        for step in names.chunks(STEP) {
            let next = Instant::now() + pause;
            for name in step {
                if Instant::now() >= until || report.bytes >= bounds.bytes_max {
                    return report;
                }
                let limit = self.settings.read_timeout * 10;
                let asked = self.value(name, Instant::now() + limit);
                let Ok(Ok(Read::Value(Value::Entry(entry)))) =
                    tokio::time::timeout(limit, asked).await
                else {
                    continue;
                };
                let bytes = entry.body.len() as u64;
                let names = &self.settings.names;
                let scope = [ShareScope::Workload, ShareScope::Namespace]
                    .into_iter()
                    .find(|scope| names.of(*scope, &entry) == *name);
                if scope.is_some_and(|scope| keep(Arc::new(*entry), scope)) {
                    report.loaded += 1;
                    report.bytes += bytes;
                }
            }
            tokio::time::sleep_until(next).await;
        }
        report
    }

    /// The hottest names of this and the last span of time.
    async fn hottest(&self, max: usize) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        let own =
            [ShareScope::Workload, ShareScope::Namespace].map(|s| self.settings.names.prefix(s));
        for bucket in [hot::bucket(), hot::bucket() - 1] {
            let list = self.settings.names.hot(bucket);
            let Ok((mut conn, _)) = self.shard(&list).usable() else { return names };
            let mut cmd = client::cmd("ZREVRANGE");
            cmd.arg(list).arg(0).arg(max.saturating_sub(1));
            let asked = cmd.query_async::<Vec<Vec<u8>>>(&mut conn);
            let Ok(Ok(found)) = tokio::time::timeout(LIST_LIMIT, asked).await else { continue };
            // Whoever can write the list must not choose what is read.
            names.extend(found.into_iter().filter(|name| {
                own.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
                    && seen.insert(name.clone())
            }));
        }
        names.truncate(max);
        names
    }
}
