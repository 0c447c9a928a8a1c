//! The heartbeat: renews the lease, tells the others what has been applied, and finds out whether
//! the log has lost something.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RedisLog;

/// Beats within one lease.
const BEATS: u32 = 4;
/// Ends of holds are looked at with each beat; and no less often than this.
const PAUSE_MAX: std::time::Duration = std::time::Duration::from_millis(500);

/// After so many beats without an answer the connection is opened anew.
const UNANSWERED_MAX: u32 = 6;

/// Runs for ever.
pub(super) async fn run(log: Arc<RedisLog>) {
    let pause = (log.settings.lease / BEATS).min(PAUSE_MAX);
    let mut links = log.commands.state();
    let mut unanswered = 0;
    loop {
        // A pod that has not read the log yet would be waited for in vain, and may serve nothing.
        if log.left.load(Ordering::Acquire) {
            return;
        }
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

/// One beat; whether it was answered.
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
        let mut lease = self.lease.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.state.now() >= lease.until() {
            // It ran out while the answer was on its way: nobody may have waited for us since.
            lease.dropped();
        }
        lease.granted(asked, length, last);
        self.lease_need.store(lease.need(), Ordering::Release);
        self.lease_until.store(lease.until(), Ordering::Release);
    }

    /// Gives the lease up.
    pub(super) fn drop_lease(&self) {
        let mut lease = self.lease.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        lease.dropped();
        self.lease_until.store(0, Ordering::Release);
    }
}
