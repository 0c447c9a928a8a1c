//! The holds that this pod has placed. The heartbeat repeats them while they last, so that a pod
//! that starts, or has lost the log, hears of each within a lease, whatever became of the first
//! event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::Seq;
use crate::event::Content;

struct Active {
    content: Content,
    /// Positions of the events that announce it. A purge must end each.
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
    /// Notes a hold that was appended; returns the number by which it is known.
    pub(super) fn begin(&self, content: Content, seq: Seq, now: u64) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.holds.lock().insert(id, Active { content, seqs: vec![seq], told_at: now });
        id
    }

    /// Forgets a hold; returns the positions of the events that a purge must end.
    pub(super) fn end(&self, id: u64) -> Vec<Seq> {
        self.holds.lock().remove(&id).map(|active| active.seqs).unwrap_or_default()
    }

    /// The holds that were last appended at a moment or before it.
    pub(super) fn due(&self, before: u64) -> Vec<(u64, Content)> {
        let holds = self.holds.lock();
        let due = holds.iter().filter(|(_, active)| active.told_at <= before);
        due.map(|(id, active)| (*id, active.content.clone())).collect()
    }

    /// Notes that a hold was appended again; `false` if it has ended meanwhile.
    pub(super) fn told(&self, id: u64, seq: Seq, now: u64) -> bool {
        match self.holds.lock().get_mut(&id) {
            Some(active) => {
                active.seqs.push(seq);
                active.told_at = now;
                true
            }
            None => false,
        }
    }
}
