//! Keys whose last response was not storable (hit-for-miss): requests for them go to the upstream
//! without a look into the store, and do not wait for each other.
//!
//! A table of fixed size with one word for each place: newer keys take the place of older ones, whose
//! next response is then fetched through the store again. Nothing is locked and nothing is allocated
//! after the start. A word holds 31 bits of the digest, so that a key is taken for another one of its
//! place in one of 2^31 cases; its request is then passed on, which is always right.

use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_semantics::{NotStored, UnixMillis};
use strum::VariantArray;

/// Places of the table; 256 KiB in all.
const PLACES: usize = 1 << 15;
/// Seconds for which a key is remembered.
const SECONDS: u64 = 60;
/// Seconds since the epoch are kept in so many bits; they come round after half a year.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const REASON_SHIFT: u32 = TIME_BITS;
const REASON_MASK: u64 = 0x7f;
/// The bit of [`Whose::OneClient`].
const ONE_CLIENT: u64 = 1 << 31;
/// The bit that tells a word from an empty place.
const USED: u64 = 1 << 63;

/// For whom the response that was not storable was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// It says the same to all.
    Everybody,
    /// A client that has sent credentials: the next such request goes to the upstream with the
    /// client's own conditions.
    OneClient,
}

/// Keys whose last response was not storable.
#[derive(Debug)]
pub(crate) struct PassedKeys(Box<[AtomicU64]>);

impl Default for PassedKeys {
    fn default() -> Self {
        PassedKeys((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl PassedKeys {
    /// Notes why a response was not stored. What is known for everybody is not narrowed to one
    /// client.
    pub(crate) fn note(&self, digest: u128, why: NotStored, whose: Whose, now: UnixMillis) {
        let (place, key) = place_and_key(digest);
        let bit = if whose == Whose::OneClient { ONE_CLIENT } else { 0 };
        let old = self.0[place].load(Ordering::Relaxed);
        if bit != 0 && is_of(old, key) && old & ONE_CLIENT == 0 && is_live(old, now) {
            return;
        }
        let until = (seconds(now) + SECONDS) & TIME_MASK;
        let word = key | bit | (why as u64 & REASON_MASK) << REASON_SHIFT | until;
        self.0[place].store(word, Ordering::Relaxed);
    }

    /// Why requests for a key are passed on, as the first of them found out; `credentials` tells
    /// whether the request has some, and is asked only where that counts.
    pub(crate) fn why(
        &self,
        digest: u128,
        now: UnixMillis,
        credentials: impl FnOnce() -> bool,
    ) -> Option<NotStored> {
        let (place, key) = place_and_key(digest);
        let word = self.0[place].load(Ordering::Relaxed);
        if !is_of(word, key) || !is_live(word, now) {
            return None;
        }
        if word & ONE_CLIENT != 0 && !credentials() {
            return None;
        }
        NotStored::VARIANTS.get((word >> REASON_SHIFT & REASON_MASK) as usize).copied()
    }

    /// Forgets a key.
    pub(crate) fn forget(&self, digest: u128) {
        let (place, key) = place_and_key(digest);
        self.remove_if(place, |word| is_of(word, key));
    }

    /// Forgets a key, but not what is known of it for single clients.
    pub(crate) fn forget_for_all(&self, digest: u128) {
        let (place, key) = place_and_key(digest);
        self.remove_if(place, |word| is_of(word, key) && word & ONE_CLIENT == 0);
    }

    fn remove_if(&self, place: usize, is_it: impl Fn(u64) -> bool) {
        let word = self.0[place].load(Ordering::Relaxed);
        if is_it(word) {
            // Whoever has put another word there meanwhile knows better.
            let (set, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.0[place].compare_exchange(word, 0, set, failed);
        }
    }
}

fn is_of(word: u64, key: u64) -> bool {
    word >> 32 == key >> 32
}

/// Whether the time of a word has not come. Times are compared as far as their bits reach.
fn is_live(word: u64, now: UnixMillis) -> bool {
    let left = (word & TIME_MASK).wrapping_sub(seconds(now)) & TIME_MASK;
    (1..=SECONDS).contains(&left)
}

fn seconds(now: UnixMillis) -> u64 {
    now.as_secs().max(0).unsigned_abs()
}

/// Parts of the digest that no other table uses alone. A key is never zero.
fn place_and_key(digest: u128) -> (usize, u64) {
    let place = ((digest >> 64) as usize) & (PLACES - 1);
    (place, ((digest >> 96) as u64) << 32 | USED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn why(keys: &PassedKeys, digest: u128, seconds: i64, credentials: bool) -> Option<NotStored> {
        keys.why(digest, NOW + seconds * 1000, || credentials)
    }

    #[test]
    fn every_reason_is_remembered_for_a_minute() {
        let keys = PassedKeys::default();
        assert!(NotStored::VARIANTS.len() <= REASON_MASK as usize);
        for (n, reason) in NotStored::VARIANTS.iter().enumerate() {
            let digest = outrigger_semantics::digest(&n.to_le_bytes());
            assert_eq!(why(&keys, digest, 0, true), None);
            keys.note(digest, *reason, Whose::Everybody, NOW);
            for seconds in [0, 1, 59] {
                assert_eq!(why(&keys, digest, seconds, false), Some(*reason));
            }
            assert_eq!(why(&keys, digest, 60, false), None);
            // A clock that was set back forgets.
            assert_eq!(why(&keys, digest, -2, false), None);
            keys.forget(digest);
            assert_eq!(why(&keys, digest, 0, false), None);
        }
    }

    #[test]
    fn what_is_for_one_client_counts_for_requests_with_credentials() {
        let (keys, key) = (PassedKeys::default(), outrigger_semantics::digest(b"k"));
        keys.note(key, NotStored::Private, Whose::OneClient, NOW);
        assert_eq!(why(&keys, key, 0, false), None);
        assert_eq!(why(&keys, key, 0, true), Some(NotStored::Private));
        keys.forget_for_all(key);
        assert_eq!(why(&keys, key, 0, true), Some(NotStored::Private));
        keys.note(key, NotStored::NoStore, Whose::Everybody, NOW);
        keys.note(key, NotStored::Private, Whose::OneClient, NOW);
        assert_eq!(why(&keys, key, 0, false), Some(NotStored::NoStore));
        keys.forget_for_all(key);
        assert_eq!(why(&keys, key, 0, true), None);
    }

    #[test]
    fn another_key_of_the_same_place_is_not_taken_for_it() {
        let keys = PassedKeys::default();
        let (one, other) = (7u128 << 64 | 1 << 100, 7u128 << 64 | 1 << 101);
        keys.note(one, NotStored::NoStore, Whose::Everybody, NOW);
        assert_eq!(why(&keys, other, 0, true), None);
        keys.forget(other);
        assert_eq!(why(&keys, one, 0, true), Some(NotStored::NoStore));
        keys.note(other, NotStored::Private, Whose::Everybody, NOW);
        assert_eq!(why(&keys, one, 0, true), None);
    }
}
