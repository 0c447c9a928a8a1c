//! Adding up over all pods which keys are hot: the task that writes the sample to Redis.

use std::sync::Weak;
use std::time::Duration;

use outrigger_redis::client;

use super::hot::{BUCKET_MS, bucket};
use super::tier::RedisTier;

/// How often the sample is written.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Number of names kept in one sum.
const KEPT_MAX: isize = 10_000;
/// Longest time for one write.
const LIMIT: Duration = Duration::from_secs(1);

/// Writes the sample now and then, for as long as the tier lives.
pub(super) async fn run(tier: Weak<RedisTier>) {
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
