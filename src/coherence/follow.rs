//! Following a shared log: each record says what came before it, so that whatever is missing shows.
//!
//! A record that is missing may have purged anything. What was trimmed away before the pod came by
//! voids what is older than the gap; a log that has lost what it once said (a flush, a fail-over to
//! a replica that lagged) voids everything.

use crate::event::{Action, Content, Record};
use crate::mirror::Mirror;

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// The next one.
    Next,
    /// One that was applied before.
    Known,
    /// Records before it are missing; what they may have voided is void.
    AfterGap,
}

/// Follows one log into one mirror.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follower {
    /// Whether a record has been absorbed yet.
    begun: bool,
}

impl Follower {
    /// Applies a record. `now` is in milliseconds of the process's clock, for the end of holds.
    pub fn absorb(&mut self, mirror: &Mirror, record: &Record, now: u64) -> Absorbed {
        let applied = mirror.applied();
        if record.seq <= applied {
            return Absorbed::Known;
        }
        let absorbed = if record.prev == applied {
            Absorbed::Next
        } else if record.prev > applied {
            // What is born at or after `prev` has no missing record behind it.
            mirror.purge_before(record.prev);
            // A pod that has just begun misses what was before its time, as it must.
            if self.begun || applied > 0 { Absorbed::AfterGap } else { Absorbed::Next }
        } else {
            mirror.purge_before(record.seq);
            Absorbed::AfterGap
        };
        self.begun = true;
        let unknown = Content::reset("");
        let content = record.content.as_ref().unwrap_or(&unknown);
        if content.action == Action::Reset {
            mirror.purge_before(record.seq);
        }
        mirror.apply(record.seq, content, now);
        absorbed
    }
}
