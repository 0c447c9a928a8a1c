//! What the protocol is known not to withstand: as soon as that comes about, a schedule's promises
//! are not judged any more. Both are judged by what the pods cannot know.

use outrigger_coherence::Seq;

use crate::check::concerns;
use crate::exec::Micros;
use crate::ops::uri;
use crate::pod::Pod;
use crate::world::World;

/// Somebody relies on having heard of a hold again that was lost with the log, and its writer could
/// not tell: it was cut off, stopped or dead.
pub const MUTE_WRITER: &str = "weak: writer out of reach";
/// A server lacks the end of the log, and something was appended there before the first heartbeat;
/// or what it has is from before the first heartbeat of all.
pub const TRUSTED_LOSS: &str = "weak: loss not noticed at once";

impl Pod {
    /// Whether the server may not have heard of this pod at or after a time.
    fn was_mute(&self, since: Micros) -> bool {
        let process = self.life.process;
        let stalled = self.sim.stalled_until(process, false);
        self.failed_at.get().max(stalled).max(self.sim.exec.stopped_until(process)) >= since
    }

    /// Notes that this pod takes what it has heard of for all holds of a key.
    pub fn relies_on_writers(&self, key: usize) {
        let unheard = self.unheard.get();
        let is_held = self.mirror.is_held(uri(key).as_bytes(), key as u128 + 1, None);
        if unheard == 0 || is_held || self.sim.checks.is_weak() {
            return;
        }
        let since = self.sim.redis.borrow().time_of(unheard);
        let is_mute = |pod: &Pod| {
            let holds = pod.active.holds.borrow();
            let mut lost = holds.values().filter(|active| {
                concerns(&active.content, key) && is_before(&active.seqs, unheard)
            });
            lost.next().is_some() && pod.was_mute(since)
        };
        let others = self.sim.pods.borrow();
        let mut others = others.iter().filter(|pod| pod.life != self.life && pod.alive.get());
        if others.any(|pod| is_mute(pod)) || self.sim.checks.is_orphaned(key, unheard) {
            self.sim.checks.weakness(&self.sim, MUTE_WRITER);
        }
    }
}

/// Whether a hold was last told of before a position.
pub fn is_before(seqs: &[Seq], unheard: Seq) -> bool {
    seqs.iter().all(|seq| *seq <= unheard)
}

impl World {
    /// Notes that a log that lacks something was taken for whole.
    pub fn note_trust(&self) {
        if self.redis.borrow_mut().was_trusted() {
            self.checks.weakness(self, TRUSTED_LOSS);
        }
    }
}
