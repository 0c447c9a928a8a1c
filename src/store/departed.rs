//! Which keys have left memory lately, so that a miss can say why it is one.
//!
//! A table of fixed size with one word for each place: newer keys take the place of older ones, and
//! what was overwritten counts as never seen. A word holds 31 bits of the digest, so that a key that was
//! never here is taken for one that was in one of 2^31 cases.

use std::sync::atomic::{AtomicU32, Ordering};

/// Places of the table; 64 KiB in all.
const PLACES: usize = 1 << 14;
/// The bit that tells why a key has left.
const EXPIRED: u32 = 1;

/// Why a key is no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It made room for others.
    Evicted,
    /// It could be neither served nor validated any more.
    Expired,
}

/// Keys that have left memory.
#[derive(Debug)]
pub struct Departed(Box<[AtomicU32]>);

impl Default for Departed {
    fn default() -> Self {
        Departed((0..PLACES).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Departed {
    /// Notes that a key has left.
    pub fn note(&self, digest: u128, why: Departure) {
        let (place, word) = place_and_word(digest);
        let bit = if why == Departure::Expired { EXPIRED } else { 0 };
        self.0[place].store(word | bit, Ordering::Relaxed);
    }

    /// Why a key has left, if it did so lately.
    pub fn why(&self, digest: u128) -> Option<Departure> {
        let (place, word) = place_and_word(digest);
        let noted = self.0[place].load(Ordering::Relaxed);
        let expired = noted & EXPIRED != 0;
        (noted & !EXPIRED == word).then_some(if expired {
            Departure::Expired
        } else {
            Departure::Evicted
        })
    }
}

/// Parts of the digest that the hash of the memory tier does not use alone. A word is never zero.
fn place_and_word(digest: u128) -> (usize, u32) {
    let place = (digest as usize) & (PLACES - 1);
    let word = (digest >> 32) as u32 | 0x8000_0000;
    (place, word & !EXPIRED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_left_is_known_until_another_takes_its_place() {
        let departed = Departed::default();
        let key = outrigger_semantics::digest(b"a");
        assert_eq!(departed.why(key), None);
        departed.note(key, Departure::Evicted);
        assert_eq!(departed.why(key), Some(Departure::Evicted));
        departed.note(key, Departure::Expired);
        assert_eq!(departed.why(key), Some(Departure::Expired));
        let other = key ^ (2 << 32);
        assert_eq!(departed.why(other), None);
        departed.note(other, Departure::Evicted);
        assert_eq!(departed.why(key), None);
    }

    #[test]
    fn keys_that_never_left_are_not_taken_for_others() {
        let departed = Departed::default();
        for n in 0..20_000u32 {
            departed.note(outrigger_semantics::digest(&n.to_le_bytes()), Departure::Evicted);
        }
        let strangers = (20_000u32..40_000)
            .filter(|n| departed.why(outrigger_semantics::digest(&n.to_le_bytes())).is_some());
        assert_eq!(strangers.count(), 0);
    }
}
