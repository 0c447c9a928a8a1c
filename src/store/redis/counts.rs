//! What the shared tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::envelope::Refused;

/// How a lookup ended. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// A usable value was there.
    Hit,
    /// Nothing was there.
    Miss,
    /// Something was there for other selecting fields.
    VaryMiss,
    /// What was there had been purged.
    Purged,
    /// What was there is damaged.
    Corrupt,
    /// What was there is not ours.
    Foreign,
    /// What was there is sealed with an unknown key, or forged.
    Seal,
    /// What was there is not sealed although it has to be.
    Unsealed,
    /// What was there was stored by other rules.
    Policy,
    /// No answer in time.
    Deadline,
    /// Not asked, since the breaker is open.
    Breaker,
    /// It failed.
    Error,
}

impl LookupResult {
    /// All results.
    pub const ALL: [Self; 12] = [
        Self::Hit,
        Self::Miss,
        Self::VaryMiss,
        Self::Purged,
        Self::Corrupt,
        Self::Foreign,
        Self::Seal,
        Self::Unsealed,
        Self::Policy,
        Self::Deadline,
        Self::Breaker,
        Self::Error,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::VaryMiss => "vary-miss",
            Self::Purged => "voided",
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
            Self::Seal => "seal",
            Self::Unsealed => "unsealed",
            Self::Policy => "policy",
            Self::Deadline => "deadline",
            Self::Breaker => "breaker",
            Self::Error => "error",
        }
    }

    pub(super) fn of_refused(refused: Refused) -> Self {
        match refused {
            Refused::Foreign => Self::Foreign,
            Refused::Corrupt => Self::Corrupt,
            Refused::Seal => Self::Seal,
            Refused::Unsealed => Self::Unsealed,
        }
    }
}

/// How a write ended. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Stored.
    Stored,
    /// Not queued, or taken from the queue unwritten, since Redis does not keep up.
    Dropped,
    /// Redis did not take it.
    Failed,
    /// Redis is out of memory.
    OutOfMemory,
    /// Redis takes no writes.
    ReadOnly,
    /// The namespace has used up its quota.
    Quota,
    /// The body is too large for the tier.
    TooLarge,
    /// The lifetime is too short for the tier.
    ShortLived,
}

impl WriteResult {
    /// All results.
    pub const ALL: [Self; 8] = [
        Self::Stored,
        Self::Dropped,
        Self::Failed,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::Quota,
        Self::TooLarge,
        Self::ShortLived,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::OutOfMemory => "out-of-memory",
            Self::ReadOnly => "read-only",
            Self::Quota => "quota",
            Self::TooLarge => "too-large",
            Self::ShortLived => "short-lived",
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counts {
    lookups: [AtomicU64; LookupResult::ALL.len()],
    writes: [AtomicU64; WriteResult::ALL.len()],
}

impl Counts {
    pub(super) fn lookup(&self, result: LookupResult) {
        self.lookups[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write(&self, result: WriteResult) {
        self.writes[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Lookups that ended so.
    pub fn lookups(&self, result: LookupResult) -> u64 {
        self.lookups[result as usize].load(Ordering::Relaxed)
    }

    /// Writes that ended so.
    pub fn writes(&self, result: WriteResult) -> u64 {
        self.writes[result as usize].load(Ordering::Relaxed)
    }
}
