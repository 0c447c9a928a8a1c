//! Redis in a running process: the tier and the purge log that pods share.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use outrigger_coherence::{PurgeLog, RedisLog};
use outrigger_diagnostic::Diagnostic;
use outrigger_proxy::Shared;
use outrigger_store::envelope::seal::Keys;
use outrigger_store::redis::{RedisTier, WarmSettings};

pub use plan::RedisPlan;

/// How long the last writes may take at the end.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Tier and purge log, once they are started.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The tier that pods share.
    pub tier: Arc<RedisTier>,
    /// The purge log; `None` if this pod keeps one of its own.
    pub log: Option<Arc<RedisLog>>,
}

/// Starts tier and log on the current runtime. Redis need not be there.
///
/// # Errors
/// When the sealing keys cannot be used.
pub fn start(plan: &RedisPlan) -> Result<Redis, Diagnostic> {
    let keys = match &plan.keys {
        None => None,
        Some(folder) => Some(
            Keys::open(folder)
                .map_err(|error| Diagnostic::new(error.to_string()).at("redis.seal.directory"))?,
        ),
    };
    let tier = RedisTier::start(plan.tier.clone(), keys);
    let log = plan.log.clone().map(|settings| {
        let target = tier.target_of(settings.log_name().as_bytes());
        RedisLog::start(settings, &target)
    });
    Ok(Redis { tier, log })
}

impl Redis {
    /// The purge log to use.
    pub fn purge_log(&self) -> PurgeLog {
        self.log.clone().map_or_else(PurgeLog::local, PurgeLog::in_redis)
    }

    /// Loads the hottest keys into memory, as far as they are valid.
    pub async fn warm(&self, shared: &Shared, bounds: WarmSettings) {
        let log = shared.log();
        let read = async {
            while !log.knows_others() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Without the log nothing can be judged, and nothing is loaded.
        if tokio::time::timeout(bounds.timeout, read).await.is_err() {
            tracing::warn!("no warm start: the purge log could not be read in time");
            return;
        }
        let report = self
            .tier
            .warm(bounds, |entry, scope| outrigger_proxy::adopt(shared, &entry, scope))
            .await;
        tracing::info!(
            hot = report.listed,
            loaded = report.loaded,
            bytes = report.bytes,
            "warm start"
        );
    }

    /// Writes what waits, and leaves the purge log, so that writers do not wait for this pod.
    pub async fn finish(&self) {
        self.tier.flush(FLUSH_MAX).await;
        if let Some(log) = &self.log {
            log.leave(FLUSH_MAX).await;
        }
    }
}
