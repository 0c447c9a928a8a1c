//! The log of a namespace: a Redis Stream that all pods append to and follow.
//!
//! Positions are made by the server: the microseconds of its clock, or one more than the last
//! position if that is later. A position is therefore never used twice, also when the log is lost
//! and begins anew. A pod that cannot reach the log keeps its purges in an outbox, and neither
//! serves nor stores what they concern until they have been appended.
//!
//! Three tasks run for each log: `reader` follows the stream, `heartbeat` renews the lease and
//! acknowledges, `drain` appends what the outbox keeps. What they learn goes into the [`RedisLog`],
//! which answers from memory.

mod acks;
mod active;
mod commands;
mod drain;
mod heartbeat;
mod log;
mod outbox;
mod position;
mod purge;
mod reader;
mod scripts;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_redis::Target;

pub use log::{RedisLog, RedisLogSettings};
pub use purge::HoldGuard;

impl RedisLog {
    /// Starts following the log on the current runtime. Redis need not be there yet.
    pub fn start(settings: RedisLogSettings, target: &Arc<Target>) -> Arc<Self> {
        let log = Arc::new(RedisLog::new(settings, target));
        tokio::spawn(reader::run(Arc::clone(&log)));
        tokio::spawn(heartbeat::run(Arc::clone(&log)));
        tokio::spawn(drain::run(Arc::clone(&log)));
        log
    }

    /// Appends what waits, as far as that can be done within `limit`, and takes this pod off the
    /// list of live pods. It must have stopped serving.
    pub async fn leave(&self, limit: Duration) {
        let emptied = async {
            while self.outbox.len() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(limit, emptied).await.is_err() {
            tracing::warn!(purges = self.outbox.len(), "purges could not be told to the others");
        }
        self.left.store(true, Ordering::Release);
        // An entry that stays on the list is ignored once its lease has run out.
        let _ = tokio::time::timeout(self.settings.append_timeout, self.forget_me()).await;
    }
}
