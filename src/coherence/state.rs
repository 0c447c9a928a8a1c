//! What one process knows of the purge log, and what those who use it are told.
//!
//! Both kinds of log, that of this process and that in Redis, write into one [`State`]; what they
//! answer is defined here, beside them, so that neither needs to know the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Seq;
use crate::event::{Action, Content, Event, Record};
use crate::follow::{Absorbed, Follower};
use crate::mirror::Mirror;

/// Number of events kept for operators to look at.
const RECENT_MAX: usize = 256;

/// Why the log could not be read or appended to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Its server is away, does not answer in time, or answers with an error; with the reason.
    #[error("the purge log cannot be reached: {0}")]
    Unreachable(String),
}

/// What became of a purge that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purged {
    /// It has its place in the log and is in effect in this pod.
    Applied(Event),
    /// The log cannot be reached. It is in effect in this pod, and will be appended.
    Queued,
}

impl Purged {
    /// What became of a purge that took a further event: queued if one of them is.
    #[must_use]
    pub fn and(self, later: Purged) -> Self {
        if self == Self::Queued { self } else { later }
    }
}

/// Who has applied an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Number of live pods that have applied it.
    pub applied: usize,
    /// Number of live pods: those whose lease may still run.
    pub live: usize,
    /// Names of the live pods that have not applied it yet.
    pub missing: Vec<String>,
    /// Whether the list of pods certainly holds all that may still serve. It does not within one
    /// lease of the list's beginning, or of this pod's connection to the server.
    pub complete: bool,
}

/// What one process knows of the log. Those who follow the log write it, those who ask read it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mirror: Mirror,
    recent: Mutex<VecDeque<Event>>,
    applied: watch::Sender<Seq>,
    gaps: AtomicU64,
    /// Up to this position there may have been holds that this pod has not heard of.
    pub(crate) unheard: AtomicU64,
    clock: std::time::Instant,
}

impl Default for State {
    fn default() -> Self {
        State::starting_at(0)
    }
}

impl State {
    /// The state of a process that has applied everything up to `seq`.
    pub(crate) fn starting_at(seq: Seq) -> Self {
        State {
            mirror: Mirror::starting_at(seq),
            recent: Mutex::default(),
            applied: watch::Sender::new(seq),
            gaps: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            clock: std::time::Instant::now(),
        }
    }

    /// The process's clock, milliseconds. It only goes forward.
    pub(crate) fn now(&self) -> u64 {
        self.at(std::time::Instant::now())
    }

    /// What that clock said at a moment, milliseconds.
    pub(crate) fn at(&self, moment: std::time::Instant) -> u64 {
        let since = moment.saturating_duration_since(self.clock);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Applies a record of a log that several processes write.
    pub(crate) fn absorb(&self, follower: &mut Follower, record: &Record) {
        let before = self.mirror.applied();
        let absorbed = follower.absorb(&self.mirror, record, self.now());
        let is_reset =
            record.content.as_ref().is_none_or(|content| content.action == Action::Reset);
        if absorbed != Absorbed::Known && is_reset {
            self.unheard.fetch_max(record.seq, Ordering::AcqRel);
        } else if absorbed != Absorbed::Known && record.prev != before {
            // A log that went back may have lost everything up to this record.
            let missing = if record.prev < before { record.seq } else { record.prev };
            self.unheard.fetch_max(missing, Ordering::AcqRel);
        }
        if absorbed == Absorbed::AfterGap {
            self.gaps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(seq = record.seq, "purge log has a gap: what was stored before is void");
        }
        if let (false, Some(content)) = (absorbed == Absorbed::Known, &record.content) {
            // Positions of such a log are microseconds of its server's clock.
            self.remember(record.seq, record.seq / 1000, content.clone());
        }
        self.applied.send_replace(self.mirror.applied());
    }

    /// Applies an event that this process alone has put in order. Positions must come in order.
    pub(crate) fn apply_own(&self, seq: Seq, content: &Content) {
        self.mirror.apply(seq, content, self.now());
        self.applied.send_replace(seq);
    }

    /// Keeps an event for operators to look at.
    pub(crate) fn remember(&self, seq: Seq, at_unix_millis: u64, content: Content) -> Event {
        let event = Event { seq, at_unix_millis, content };
        let mut recent = self.recent.lock();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        event
    }

    /// The latest events, oldest first.
    pub(crate) fn recent(&self) -> Vec<Event> {
        self.recent.lock().iter().cloned().collect()
    }

    /// How often records were missing.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Waits until a position has been applied; `false` if that takes longer than `limit`.
    pub(crate) async fn until_applied(&self, seq: Seq, limit: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= seq);
        tokio::time::timeout(limit, reached).await.is_ok_and(|reached| reached.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_of_several_events_is_queued_if_one_of_them_is() {
        let at =
            |seq| Purged::Applied(Event { seq, at_unix_millis: 0, content: Content::reset("") });
        assert_eq!(at(1).and(at(2)), at(2));
        for queued in [Purged::Queued.and(at(2)), at(1).and(Purged::Queued)] {
            assert_eq!(queued, Purged::Queued);
        }
    }
}
