//! The holds that a pod has placed, and repeats while they last; as `shared/active.rs` does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use outrigger_coherence::{Content, Seq};

use crate::ops::ending;
use crate::pod::Pod;
use crate::rules::Rule;
use crate::world::LEASE_MS;

/// A hold of a write that is under way.
pub struct Active {
    pub content: Content,
    /// The events that announce it.
    pub seqs: Vec<Seq>,
    told_at: u64,
}

/// `ActiveHolds`.
#[derive(Default)]
pub struct ActiveHolds {
    pub holds: RefCell<BTreeMap<u64, Active>>,
    next_id: Cell<u64>,
}

impl ActiveHolds {
    pub fn begin(&self, content: Content, seq: Seq, now: u64) -> u64 {
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.holds.borrow_mut().insert(id, Active { content, seqs: vec![seq], told_at: now });
        id
    }

    pub fn end(&self, id: u64) -> Vec<Seq> {
        self.holds.borrow_mut().remove(&id).map(|active| active.seqs).unwrap_or_default()
    }

    fn due(&self, before: u64) -> Vec<(u64, Content)> {
        let holds = self.holds.borrow();
        let due = holds.iter().filter(|(_, active)| active.told_at <= before);
        due.map(|(id, active)| (*id, active.content.clone())).collect()
    }

    fn told(&self, id: u64, seq: Seq, now: u64) -> bool {
        match self.holds.borrow_mut().get_mut(&id) {
            Some(active) => {
                active.seqs.push(seq);
                active.told_at = now;
                true
            }
            None => false,
        }
    }
}

impl Pod {
    /// `RedisLog::repeat_holds`.
    pub async fn repeat_holds(&self) {
        let Some(before) = self.now().checked_sub(LEASE_MS / 2) else { return };
        if !self.sim.rules.has(Rule::RepeatHolds) {
            return;
        }
        for (id, content) in self.active.due(before) {
            let Some(seq) = self.append(&content).await else { return };
            if !self.active.told(id, seq, self.now()) {
                self.push(ending(&content, seq));
            }
        }
    }

    /// `HoldGuard::complete`: the position of the last purge, or `None` if that is queued.
    pub async fn complete(&self, id: u64) -> Option<Seq> {
        let content = self.active.holds.borrow().get(&id).map(|active| active.content.clone())?;
        let mut last = None;
        for seq in self.active.end(id) {
            last = self.purge(&ending(&content, seq)).await;
            self.sim.checks.in_effect(self.life, last);
        }
        last
    }

    /// `HoldGuard::drop`.
    pub fn give_up(&self, id: u64, content: &Content) {
        for seq in self.active.end(id) {
            self.push(ending(content, seq));
        }
    }
}
