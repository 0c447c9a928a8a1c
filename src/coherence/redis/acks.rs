//! Waiting until other pods have applied an event.

use std::time::Duration;

use super::commands::AcksAnswer;
use super::log::RedisLog;
use crate::Seq;
use crate::state::{Acks, LogError};

impl RedisLog {
    /// Waits until no pod can serve what an event forbids.
    pub(super) async fn applied_everywhere(&self, seq: Seq) -> Result<(), LogError> {
        let began = self.state.now();
        // Nobody's lease can outlive this, whatever the log remembers about pods.
        let limit = self.longest_lease_ms().saturating_mul(2);
        loop {
            let answer = self.ask_acks(seq).await?;
            if !answer.is_there {
                // A fail-over has lost the event: other pods may never hear of it.
                return Err(LogError::Unreachable("the log has lost the hold".to_owned()));
            }
            if answer.acks.missing.is_empty() && self.is_settled(&answer) {
                return Ok(());
            }
            if self.state.now() > began.saturating_add(limit) {
                return Err(LogError::Unreachable("pods do not acknowledge".to_owned()));
            }
            let pause = if answer.acks.missing.is_empty() { 20 } else { 2 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Whether the list of pods is complete. A server that this pod has just connected to, and a
    /// list that has just begun, may not know leases that were granted before.
    fn is_settled(&self, answer: &AcksAnswer) -> bool {
        let now = self.state.now();
        let contact = self.commands.since().map_or(now, |since| self.state.at(since));
        let since = contact.max(now.saturating_sub(answer.known_ms));
        now >= since.saturating_add(self.longest_lease_ms())
    }

    /// Waits for acknowledgements; see [`crate::PurgeLog::acknowledged`].
    pub(crate) async fn acknowledged(&self, seq: Seq, limit: Duration) -> Acks {
        let mut last = Acks::default();
        let mut pause = Duration::from_millis(1);
        let polling = async {
            loop {
                if let Ok(answer) = self.ask_acks(seq).await {
                    // Pods that are not on a new list yet are waited for.
                    let complete = self.is_settled(&answer);
                    last = Acks { complete, ..answer.acks };
                    if last.missing.is_empty() && last.live > 0 && complete {
                        return;
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(16));
            }
        };
        // When the time is up, the last answer counts.
        let _ = tokio::time::timeout(limit, polling).await;
        last
    }
}
