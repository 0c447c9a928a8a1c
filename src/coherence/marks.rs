//! The latest positions of the log at which something was purged.

use crate::Seq;
use crate::event::PurgeMode;

/// The latest hard and the latest soft purge; zero if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) hard: Seq,
    pub(crate) soft: Seq,
}

impl Marks {
    /// Notes a purge at a position.
    pub(crate) fn set(&mut self, mode: PurgeMode, seq: Seq) {
        match mode {
            PurgeMode::Hard => self.hard = self.hard.max(seq),
            PurgeMode::Soft => self.soft = self.soft.max(seq),
        }
    }

    /// Takes the later position of each.
    pub(crate) fn join(&mut self, other: &Marks) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    /// The later of both.
    pub(crate) fn latest(&self) -> Seq {
        self.hard.max(self.soft)
    }
}
