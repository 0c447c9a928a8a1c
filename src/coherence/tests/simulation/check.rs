//! What must hold, judged by true time and the origin's order, of which the pods know nothing.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use outrigger_coherence::{Content, Matcher, Seq};

use crate::exec::Life;
use crate::linear::{Op, not_linearizable};
use crate::ops::uri;
use crate::pod::{Pod, Stored};
use crate::weak::is_before;
use crate::world::{LEVELS, Level, World, short};

/// An event of the log, whether it is still there or not.
struct Appended {
    seq: Seq,
    stamp: u64,
    content: Content,
}

#[derive(Default)]
struct Seen {
    events: Vec<Appended>,
    /// Purges that wait in outboxes.
    queued: Vec<(Life, u64, Content)>,
    /// Positions that were said to be in effect in a pod.
    in_effect: HashSet<(Life, Seq)>,
    /// Positions that every live pod was said to have applied.
    acknowledged: Vec<Seq>,
    /// The place of each value in the origin's order of its key.
    versions: HashMap<u64, usize>,
    written: [usize; LEVELS.len()],
    /// Keys that a write changed of which the log was never told: its pod died.
    forgotten: HashSet<usize>,
    /// Holds of pods that have died, with the events that announced them.
    orphans: Vec<(Content, Vec<Seq>)>,
    /// Whether a known weakness has come about.
    is_weak: bool,
    ops: Vec<Op>,
    violation: Option<String>,
    counts: HashMap<&'static str, usize>,
}

/// Collects what happens, and the first thing that must not.
#[derive(Default)]
pub struct Checks {
    seen: RefCell<Seen>,
}

pub fn concerns(content: &Content, key: usize) -> bool {
    match &content.matcher {
        Matcher::Url { digests, .. } => digests.contains(&(key as u128 + 1)),
        Matcher::Tag(tag) => *tag == format!("t{key}"),
        Matcher::Prefix(prefix) => uri(key).starts_with(prefix),
        Matcher::All => true,
    }
}

impl Checks {
    pub fn fail(&self, world: &World, why: String) {
        world.note(|| format!("VIOLATION {why}"));
        self.seen.borrow_mut().violation.get_or_insert(why);
    }

    /// A promise is broken.
    pub fn breach(&self, world: &World, why: String) {
        match self.is_weak() {
            true => world.note(|| format!("EXCUSED  {why}")),
            false => self.fail(world, why),
        }
    }

    /// What the protocol is known not to withstand has come about.
    pub fn weakness(&self, world: &World, what: &'static str) {
        if !self.is_weak() {
            world.note(|| format!("WEAKNESS {what}"));
            self.count(what);
        }
        self.seen.borrow_mut().is_weak = true;
    }

    pub fn is_weak(&self) -> bool {
        self.seen.borrow().is_weak
    }

    pub fn violation(&self) -> Option<String> {
        self.seen.borrow().violation.clone()
    }

    pub fn has_failed(&self) -> bool {
        self.seen.borrow().violation.is_some()
    }

    pub fn count(&self, what: &'static str) {
        *self.seen.borrow_mut().counts.entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> HashMap<&'static str, usize> {
        self.seen.borrow().counts.clone()
    }

    pub fn appended(&self, world: &World, seq: Seq, content: &Content) {
        let event = Appended { seq, stamp: world.exec.stamp(), content: content.clone() };
        self.seen.borrow_mut().events.push(event);
    }

    pub fn queued(&self, life: Life, id: u64, content: &Content) {
        self.seen.borrow_mut().queued.push((life, id, content.clone()));
    }

    pub fn released(&self, life: Life, id: u64) {
        self.seen.borrow_mut().queued.retain(|(owner, have, _)| (*owner, *have) != (life, id));
    }

    pub fn in_effect(&self, life: Life, seq: Option<Seq>) {
        self.seen.borrow_mut().in_effect.extend(seq.map(|seq| (life, seq)));
    }

    pub fn acknowledged(&self, seq: Seq) {
        self.seen.borrow_mut().acknowledged.push(seq);
    }

    pub fn took_effect(&self, key: usize, value: u64) {
        let mut seen = self.seen.borrow_mut();
        seen.written[key] += 1;
        let version = seen.written[key];
        seen.versions.insert(value, version);
    }

    pub fn version(&self, value: u64) -> usize {
        self.seen.borrow().versions.get(&value).copied().unwrap_or(0)
    }

    /// A pod dies: what it had yet to tell the log is never told.
    pub fn died(&self, pod: &Pod) {
        let mut seen = self.seen.borrow_mut();
        seen.queued.retain(|(life, _, _)| *life != pod.life);
        seen.forgotten.extend(pod.in_flight.borrow().iter());
        let holds = pod.active.holds.borrow();
        let orphans = holds.values().map(|active| (active.content.clone(), active.seqs.clone()));
        seen.orphans.extend(orphans);
        for (_, content) in pod.outbox.borrow().iter() {
            seen.forgotten.extend((0..LEVELS.len()).filter(|key| concerns(content, *key)));
        }
    }

    /// Whether a pod died during a write to a key that it announced before a position only.
    pub fn is_orphaned(&self, key: usize, unheard: Seq) -> bool {
        let seen = self.seen.borrow();
        let mut orphans = seen.orphans.iter();
        orphans.any(|(content, seqs)| concerns(content, key) && is_before(seqs, unheard))
    }

    pub fn is_forgotten(&self, key: usize) -> bool {
        self.seen.borrow().forgotten.contains(&key)
    }

    /// A pod serves something stored.
    pub fn served(&self, pod: &Pod, key: usize, stored: &Stored) {
        let why = self.forbidden(pod, key, stored);
        if let Some(why) = why {
            let what = format!("{} serves k{key} = {}: {why}", pod.name, stored.value);
            self.breach(&pod.sim, what);
        }
    }

    fn forbidden(&self, pod: &Pod, key: usize, stored: &Stored) -> Option<String> {
        let seen = self.seen.borrow();
        if seen.queued.iter().any(|(life, _, what)| *life == pod.life && concerns(what, key)) {
            return Some("a purge of it waits in the outbox".to_owned());
        }
        let (applied, has_lease) = (pod.mirror.applied(), pod.has_lease());
        let later = |event: &&Appended| event.stamp > stored.began && concerns(&event.content, key);
        for event in seen.events.iter().filter(later) {
            let why = if event.stamp < pod.started {
                "which was answered before it started"
            } else if event.seq <= applied {
                "which it has applied"
            } else if seen.in_effect.contains(&(pod.life, event.seq)) {
                "which it said was in effect"
            } else if has_lease && seen.acknowledged.contains(&event.seq) {
                "which every live pod was said to have applied"
            } else {
                continue;
            };
            let (action, seq) = (event.content.action.as_str(), short(event.seq));
            return Some(format!("its fetch began before {action} {seq}, {why}"));
        }
        None
    }

    pub fn operation(&self, op: Op) {
        self.seen.borrow_mut().ops.push(op);
    }

    /// Judges the strong keys.
    pub fn strong(&self, world: &World) {
        let ops = self.seen.borrow().ops.clone();
        for key in (0..LEVELS.len()).filter(|key| LEVELS[*key] == Level::Strong) {
            let ops: Vec<Op> = ops.iter().filter(|op| op.key == key).copied().collect();
            if let Some(why) = not_linearizable(&ops) {
                self.breach(world, format!("k{key} is not linearizable: {why}"));
            }
        }
    }
}
