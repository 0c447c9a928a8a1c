//! The holds that this pod has placed. They are repeated while they last, so that a pod that starts,
//! or has lost the log, hears of each within a lease, whatever became of the first event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::RedisLog;
use crate::Seq;
use crate::event::Content;

struct Active {
    content: Content,
    /// The events that announce it; a purge must end each.
    seqs: Vec<Seq>,
    /// When the last one was appended, in milliseconds of the process's clock.
    told_at: u64,
}

/// The holds of writes that are under way.
#[derive(Default)]
pub(super) struct ActiveHolds {
    holds: Mutex<HashMap<u64, Active>>,
    next_id: AtomicU64,
}

impl ActiveHolds {
    fn holds(&self) -> MutexGuard<'_, HashMap<u64, Active>> {
        self.holds.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes a hold that was appended; the number that it goes by.
    pub(super) fn begin(&self, content: Content, seq: Seq, now: u64) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.holds().insert(id, Active { content, seqs: vec![seq], told_at: now });
        id
    }

    /// Forgets a hold; the events that a purge must end.
    pub(super) fn end(&self, id: u64) -> Vec<Seq> {
        self.holds().remove(&id).map(|active| active.seqs).unwrap_or_default()
    }

    /// Those last told of before a moment.
    fn due(&self, before: u64) -> Vec<(u64, Content)> {
        let holds = self.holds();
        let due = holds.iter().filter(|(_, active)| active.told_at <= before);
        due.map(|(id, active)| (*id, active.content.clone())).collect()
    }

    /// Notes that a hold was told of again; `false` if it has ended meanwhile.
    fn told(&self, id: u64, seq: Seq, now: u64) -> bool {
        match self.holds().get_mut(&id) {
            Some(active) => {
                active.seqs.push(seq);
                active.told_at = now;
                true
            }
            None => false,
        }
    }
}

impl RedisLog {
    /// Tells again of the holds that were told of longer than half a lease ago.
    pub(super) async fn repeat_holds(&self) {
        let half = u64::try_from(self.settings.lease.as_millis() / 2).unwrap_or(u64::MAX);
        let Some(before) = self.state.now().checked_sub(half) else { return };
        for (id, content) in self.active.due(before) {
            let Ok(seq) = self.append(&content).await else { return };
            if !self.active.told(id, seq, self.state.now()) {
                // The write ended while this was on its way.
                let mut content = content;
                content.action = crate::event::Action::Purge {
                    mode: crate::event::PurgeMode::Hard,
                    ends: Some(seq),
                };
                self.outbox.push(&self.state.mirror, content);
            }
        }
    }
}
