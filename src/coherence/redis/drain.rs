//! Appending what the outbox keeps, as soon as the log can be reached.

use std::sync::Arc;
use std::time::Duration;

use super::log::RedisLog;

/// Pause after an append that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Appends what waits, the oldest first. Runs for ever.
pub(super) async fn run(log: Arc<RedisLog>) {
    loop {
        let Some((id, mut content)) = log.outbox.first() else {
            log.outbox.until_pushed().await;
            continue;
        };
        if content.pod.is_empty() {
            content.pod = log.settings.pod.clone().into();
        }
        match log.append(&content).await {
            Ok(seq) => {
                log.in_effect(seq, &content).await;
                log.outbox.remove(id);
                log.state.mirror.release(id);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
