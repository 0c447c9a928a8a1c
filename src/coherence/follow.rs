//! Following a log that several processes write: each record names the position before it, so that
//! a missing record is noticed.
//!
//! A missing record may have purged anything. If records were trimmed before this pod read them,
//! everything born before the gap counts as purged. If the log has lost records that it once had (a
//! flush, a fail-over to a replica that lagged), everything does.

use crate::event::{Action, Content, Record};
use crate::mirror::Mirror;

/// How a record continues what was applied before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// It is the next record.
    Next,
    /// It was applied before.
    Known,
    /// Records before it are missing; what they may have concerned now counts as purged.
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
            // For what was born at or after `prev`, no record is missing.
            mirror.purge_before(record.prev);
            // A pod that has just started always misses what was appended before.
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
