//! The heartbeat: renews the lease, acknowledges what has been applied, finds out whether the log
//! has lost something, and repeats this pod's holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::RedisLog;
use crate::event::{Action, PurgeMode};

/// Number of beats within one lease.
const BEATS: u32 = 4;
/// Longest pause between beats, since each also ends the holds whose time has passed.
const PAUSE_MAX: std::time::Duration = std::time::Duration::from_millis(500);

/// Number of unanswered beats in a row after which the connection is opened anew.
const UNANSWERED_MAX: u32 = 6;

/// Beats until this pod leaves, or the link ends.
pub(super) async fn run(log: Arc<RedisLog>) {
    let pause = (log.settings.lease / BEATS).min(PAUSE_MAX);
    let mut links = log.commands.state();
    let mut unanswered = 0;
    loop {
        if log.left.load(Ordering::Acquire) {
            return;
        }
        // Writers would wait in vain for a pod that has not read the log yet. It may serve nothing.
        if log.caught_up.load(Ordering::Acquire) {
            unanswered = if beat(&log).await { 0 } else { unanswered + 1 };
            if unanswered >= UNANSWERED_MAX {
                unanswered = 0;
                log.commands.reopen();
            }
        }
        log.repeat_holds().await;
        log.state.mirror.expire_holds(log.state.now());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = log.applied.notified() => {}
            changed = links.changed() => {
                if changed.is_err() {
                    return;
                }
                // Perhaps another server, which does not know the leases of the one before.
                links.mark_unchanged();
                log.drop_lease();
            }
        }
    }
}

/// One beat; returns whether it was answered.
async fn beat(log: &RedisLog) -> bool {
    let asked = log.state.now();
    let applied = log.state.mirror.applied();
    let Ok((last, server_micros)) = log.heartbeat(applied).await else { return false };
    log.heard_at.store(log.state.now(), Ordering::Release);
    log.heard_last.store(last, Ordering::Release);
    let offset = server_micros.saturating_sub(asked * 1000);
    log.server_offset.store(offset, Ordering::Release);
    if last == applied {
        // Whatever is appended from now on has a later position than the server's clock now.
        log.covered.fetch_max(server_micros.saturating_sub(1), Ordering::AcqRel);
    }
    log.renew_lease(asked, last);
    true
}

impl RedisLog {
    fn renew_lease(&self, asked: u64, last: u64) {
        let length = u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX);
        let mut lease = self.lease.lock();
        if self.state.now() >= lease.until() {
            // It ran out while the answer was on its way: writers may not have waited since.
            lease.dropped();
        }
        lease.granted(asked, length, last);
        self.lease_need.store(lease.need(), Ordering::Release);
        self.lease_until.store(lease.until(), Ordering::Release);
    }

    /// Gives the lease up: the next server may not know it.
    fn drop_lease(&self) {
        let mut lease = self.lease.lock();
        lease.dropped();
        self.lease_until.store(0, Ordering::Release);
    }

    /// Appends the holds again that were last appended longer than half a lease ago.
    async fn repeat_holds(&self) {
        let half = u64::try_from(self.settings.lease.as_millis() / 2).unwrap_or(u64::MAX);
        let Some(before) = self.state.now().checked_sub(half) else { return };
        for (id, content) in self.active.due(before) {
            let Ok(seq) = self.append(&content).await else { return };
            if !self.active.told(id, seq, self.state.now()) {
                // The write ended while this was on its way.
                let mut content = content;
                content.action = Action::Purge { mode: PurgeMode::Hard, ends: Some(seq) };
                self.outbox.push(&self.state.mirror, content);
            }
        }
    }
}
