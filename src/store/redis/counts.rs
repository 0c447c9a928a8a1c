//! What the Redis tier counts: lookups and writes, by result.

use std::sync::atomic::{AtomicU64, Ordering};

use strum::{EnumCount, IntoStaticStr, VariantArray};

use crate::envelope::Refused;

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum LookupResult {
    /// A usable value was found.
    Hit,
    /// No value was found.
    Miss,
    /// A value was found, but for other selecting fields.
    VaryMiss,
    /// A value was found that a purge had invalidated.
    #[strum(serialize = "voided")]
    Purged,
    /// The value is damaged.
    Corrupt,
    /// The value was not written by Outrigger, or by a version that this one does not read.
    Foreign,
    /// The value is sealed with an unknown key, or forged.
    Seal,
    /// The value is not sealed although it has to be.
    Unsealed,
    /// The value was stored by other caching rules.
    Policy,
    /// Redis did not answer in time.
    Deadline,
    /// Redis was not asked, since the breaker is open.
    Breaker,
    /// Redis answered with an error, or there is no connection.
    Error,
}

impl LookupResult {
    /// All results, in the order of metrics.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The stable name in metrics and answers to operators.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The result of a lookup whose value was refused.
    pub(super) fn of_refused(refused: Refused) -> Self {
        match refused {
            Refused::Foreign => Self::Foreign,
            Refused::Corrupt => Self::Corrupt,
            Refused::Seal => Self::Seal,
            Refused::Unsealed => Self::Unsealed,
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum WriteResult {
    /// Redis has stored the value.
    Stored,
    /// The queue was full, or Redis was down when the write's turn came.
    Dropped,
    /// Redis answered with an error, or not in time.
    Failed,
    /// Redis is out of memory.
    OutOfMemory,
    /// Redis takes no writes: it is a replica, or lacks replicas or disk.
    ReadOnly,
    /// The namespace has used up its quota.
    Quota,
    /// The body is too large for the tier.
    TooLarge,
    /// Another pod has stored a more recent response.
    Overtaken,
    /// The lifetime is too short for the tier.
    ShortLived,
}

impl WriteResult {
    /// All results, in the order of metrics.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The stable name in metrics and answers to operators.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Numbers of lookups and writes since the start.
#[derive(Debug, Default)]
pub struct Counts {
    lookups: [AtomicU64; LookupResult::COUNT],
    writes: [AtomicU64; WriteResult::COUNT],
}

impl Counts {
    pub(super) fn lookup(&self, result: LookupResult) {
        self.lookups[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write(&self, result: WriteResult) {
        self.writes[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of lookups with this result.
    pub fn lookups(&self, result: LookupResult) -> u64 {
        self.lookups[result as usize].load(Ordering::Relaxed)
    }

    /// Number of writes with this result.
    pub fn writes(&self, result: WriteResult) -> u64 {
        self.writes[result as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_results_are_stable() {
        let lookups: Vec<&str> = LookupResult::ALL.iter().map(|result| result.as_str()).collect();
        let expected = "hit miss vary-miss voided corrupt foreign seal unsealed policy deadline \
                        breaker error";
        assert_eq!(lookups.join(" "), expected);
        let writes: Vec<&str> = WriteResult::ALL.iter().map(|result| result.as_str()).collect();
        let expected =
            "stored dropped failed out-of-memory read-only quota too-large overtaken short-lived";
        assert_eq!(writes.join(" "), expected);
    }
}
