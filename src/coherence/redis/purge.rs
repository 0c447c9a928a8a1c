//! Purges and holds that this pod appends.

use std::sync::Arc;
use std::time::Duration;

use super::log::RedisLog;
use crate::Seq;
use crate::event::{Content, Event, PurgeRequest};
use crate::holds::Ends;
use crate::state::{LogError, Purged};

/// A hold that this pod has placed. A purge ends it in any case, also if it is dropped without
/// being completed because the client went away in the middle of its write.
#[derive(Debug)]
pub struct HoldGuard {
    log: Arc<RedisLog>,
    request: PurgeRequest,
    id: u64,
    /// The events that remain to be ended, once that has begun.
    left: Vec<Seq>,
}

impl RedisLog {
    /// Appends a purge; see [`crate::PurgeLog::purge`].
    pub(crate) async fn purge(&self, request: PurgeRequest, ends: Option<Seq>) -> Purged {
        let content = Content::purge(request, ends, &self.settings.pod);
        match self.append(&content).await {
            Ok(seq) => {
                self.in_effect(seq, &content).await;
                Purged::Applied(Event { seq, at_unix_millis: seq / 1000, content })
            }
            Err(error) => {
                tracing::debug!(%error, "a purge is kept until the log can be reached");
                self.outbox.push(&self.state.mirror, content);
                Purged::Queued
            }
        }
    }

    /// Makes sure that an event of the log is in effect in this pod. It mostly comes back from the
    /// log at once; where it does not, a hold takes its place until it does.
    pub(super) async fn in_effect(&self, seq: Seq, content: &Content) {
        if !self.state.until_applied(seq, self.settings.append_timeout).await {
            let ends = Ends::Applied(seq);
            self.state.mirror.hold(&content.matcher, ends);
        }
    }

    /// Keeps a URL from being served or stored by any pod until the guard is completed. With
    /// `everywhere` this returns only when every live pod has applied the hold, or has lost its
    /// lease.
    ///
    /// # Errors
    /// When the log cannot be reached; the hold may then exist for a while all the same.
    pub async fn hold(
        self: &Arc<Self>,
        request: PurgeRequest,
        everywhere: bool,
    ) -> Result<HoldGuard, LogError> {
        let content = Content::hold(request.clone(), &self.settings.pod);
        let seq = self.append(&content).await?;
        let id = self.active.begin(content.clone(), seq, self.state.now());
        let guard = HoldGuard { log: Arc::clone(self), request, id, left: Vec::new() };
        self.in_effect(seq, &content).await;
        if everywhere {
            self.applied_everywhere(seq).await?;
        }
        Ok(guard)
    }
}

impl HoldGuard {
    /// Purges, and ends the hold: the write is over, whatever became of it.
    pub async fn complete(mut self) -> Purged {
        self.left = self.log.active.end(self.id);
        let mut last = Purged::Queued;
        // If this future is dropped here, the guard's drop ends what is left.
        while let Some(seq) = self.left.first().copied() {
            last = self.log.purge(self.request.clone(), Some(seq)).await;
            self.left.retain(|have| *have != seq);
        }
        last
    }

    /// The kind of what is held, for metrics.
    pub fn kind(&self) -> &'static str {
        self.request.matcher.kind()
    }

    /// Ends the hold after a while, since the write may still take effect.
    pub fn linger(self, time: Duration) {
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            self.complete().await;
        });
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.left.append(&mut self.log.active.end(self.id));
        for seq in self.left.drain(..) {
            let request = self.request.clone();
            let content = Content::purge(request, Some(seq), &self.log.settings.pod);
            self.log.outbox.push(&self.log.state.mirror, content);
        }
    }
}
