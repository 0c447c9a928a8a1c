//! How often keys have been asked for lately, for routes that store only what is asked for often
//! (policy `cache.minUses`).
//!
//! A table of fixed size with one word for each place, made with the first count. A newer key takes
//! the place of another one, which then counts from the beginning: what is asked for often enough is
//! stored a little later.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_semantics::UnixMillis;

/// Places of the table; 256 KiB in all.
const PLACES: usize = 1 << 15;
/// Seconds without a request after which a key counts from the beginning.
const SECONDS: u64 = 600;
/// Bits of the seconds since the epoch that are kept; those of the count lie above them.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const COUNT_MASK: u64 = 0xff;

/// How often keys have been asked for.
#[derive(Debug, Default)]
pub(crate) struct Uses(OnceLock<Box<[AtomicU64]>>);

impl Uses {
    /// Counts a request that the store could not answer.
    pub(crate) fn count(&self, digest: u128, now: UnixMillis) {
        let table = self.0.get_or_init(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());
        let (place, key) = place_and_key(digest);
        let next = |word: u64| {
            let count = uses(word, key, now).saturating_add(1);
            Some(key | u64::from(count) << TIME_BITS | (seconds(now) & TIME_MASK))
        };
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        // It cannot fail: there is always a next word.
        let _ = table[place].fetch_update(set, read, next);
    }

    /// How often a key has been asked for, the present request included; at most 255.
    pub(crate) fn of(&self, digest: u128, now: UnixMillis) -> u8 {
        let (place, key) = place_and_key(digest);
        let word = self.0.get().map_or(0, |table| table[place].load(Ordering::Relaxed));
        uses(word, key, now)
    }
}

fn uses(word: u64, key: u64, now: UnixMillis) -> u8 {
    let age = seconds(now).wrapping_sub(word) & TIME_MASK;
    // A clock that was set back a little makes no key older.
    let lately = age <= SECONDS || age > TIME_MASK - SECONDS;
    if word >> 32 != key >> 32 || !lately {
        return 0;
    }
    (word >> TIME_BITS & COUNT_MASK) as u8
}

fn seconds(now: UnixMillis) -> u64 {
    now.as_secs().max(0).unsigned_abs()
}

/// Parts of the digest that no other table uses together.
fn place_and_key(digest: u128) -> (usize, u64) {
    (((digest >> 48) as usize) & (PLACES - 1), ((digest >> 96) as u64) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    #[test]
    fn uses_are_counted_until_a_key_rests() {
        let (uses, key) = (Uses::default(), outrigger_semantics::digest(b"k"));
        assert_eq!(uses.of(key, NOW), 0);
        for n in 1..=300u32 {
            uses.count(key, NOW + i64::from(n));
            assert_eq!(u32::from(uses.of(key, NOW + i64::from(n))), n.min(255));
        }
        assert_eq!(uses.of(key, NOW + 590_000), 255);
        assert_eq!(uses.of(key, NOW + 620_000), 0);
        uses.count(key, NOW + 620_000);
        assert_eq!(uses.of(key, NOW + 620_000), 1);
    }

    #[test]
    fn another_key_of_the_same_place_counts_for_itself() {
        let uses = Uses::default();
        let (one, other) = (7u128 << 48 | 1 << 100, 7u128 << 48 | 1 << 101);
        uses.count(one, NOW);
        assert_eq!((uses.of(one, NOW), uses.of(other, NOW)), (1, 0));
        uses.count(other, NOW);
        assert_eq!((uses.of(one, NOW), uses.of(other, NOW)), (0, 1));
    }
}
