//! The memory tier: stored responses in this pod's memory, bounded by bytes.
//!
//! The digest of the canonical key finds a slot; the full key is compared, so that a collision of
//! digests is a miss and never a wrong answer. All variants of a key share its slot, so that they
//! are evicted together. Which slots stay is decided by moka's W-TinyLFU; weights count index and
//! header memory, not only bodies.
//!
//! It does not implement [`Tier`](crate::Tier): it answers without waiting, and cannot fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;
use outrigger_semantics::NotStored;
use outrigger_semantics::storable::has_validator;
use smallvec::SmallVec;

use crate::entry::Entry;
use crate::lookup::{Lookup, Miss, Wanted};

/// Entries that can be validated are kept this long after they can no longer be served, because a
/// 304 is cheaper than a body.
const KEPT_FOR_VALIDATION: Duration = Duration::from_secs(24 * 3600);

/// All stored responses of one key.
#[derive(Debug)]
struct Slot {
    key: Arc<[u8]>,
    variants: SmallVec<[Arc<Entry>; 1]>,
}

/// Takes the digest as its own hash: it is uniform already.
#[derive(Clone, Copy, Debug, Default)]
struct DigestHasher(u64);

impl std::hash::Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, digest: u128) {
        self.0 = (digest >> 64) as u64 ^ digest as u64;
    }
}

type BuildDigestHasher = std::hash::BuildHasherDefault<DigestHasher>;

/// Expires slots of which no entry can be served or validated any more.
#[derive(Debug)]
struct Usefulness;

impl Expiry<u128, Arc<Slot>> for Usefulness {
    fn expire_after_create(
        &self,
        _: &u128,
        slot: &Arc<Slot>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(slot.useful_for())
    }

    fn expire_after_update(
        &self,
        _: &u128,
        slot: &Arc<Slot>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(slot.useful_for())
    }
}

impl Slot {
    fn useful_for(&self) -> Duration {
        self.variants.iter().map(|entry| useful_for(entry)).max().unwrap_or_default()
    }

    fn weight(&self) -> u32 {
        let total: usize = self.variants.iter().map(|entry| entry.weight()).sum();
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

fn useful_for(entry: &Entry) -> Duration {
    let millis = entry.lifetimes.usable_until().millis_since(entry.stored_at).max(0);
    let usable = Duration::from_millis(millis.unsigned_abs());
    let kept = if has_validator(&entry.headers) { KEPT_FOR_VALIDATION } else { Duration::ZERO };
    // moka refuses durations of more than 1000 years.
    (usable + kept).clamp(Duration::from_secs(1), Duration::from_secs(86_400 * 3650))
}

/// Numbers that the memory tier counts itself.
#[derive(Debug, Default)]
pub struct MemoryCounts {
    /// Slots removed to make room.
    pub evicted: AtomicU64,
    /// Variants dropped because a key had too many.
    pub variants_dropped: AtomicU64,
}

/// Stored responses in this pod's memory.
#[derive(Debug)]
pub struct MemoryTier {
    cache: Cache<u128, Arc<Slot>, BuildDigestHasher>,
    variants_max: usize,
    counts: Arc<MemoryCounts>,
}

impl MemoryTier {
    /// A tier that holds at most `bytes_max` bytes, and at most `variants_max` variants of a key.
    pub fn new(bytes_max: u64, variants_max: usize) -> Self {
        let counts = Arc::new(MemoryCounts::default());
        let evictions = Arc::clone(&counts);
        let cache = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &u128, slot: &Arc<Slot>| slot.weight())
            .expire_after(Usefulness)
            .eviction_listener(move |_, _, cause| {
                if cause == moka::notification::RemovalCause::Size {
                    evictions.evicted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(BuildDigestHasher::default());
        MemoryTier { cache, variants_max: variants_max.max(1), counts }
    }

    /// Looks for a stored response whose selecting fields match. Waits for nothing.
    pub fn get(&self, wanted: Wanted<'_>) -> Lookup {
        let Some(slot) = self.cache.get(&wanted.digest) else { return Lookup::Miss(Miss::Uri) };
        if *slot.key != *wanted.key {
            return Lookup::Miss(Miss::Uri);
        }
        // The most recently stored variant comes first (RFC 9111 §4.1).
        match slot.variants.iter().find(|entry| entry.variant.matches(wanted.headers)) {
            Some(entry) => Lookup::Hit(Arc::clone(entry)),
            None => Lookup::Miss(Miss::Variant),
        }
    }

    /// Stores a response, replacing the one with the same selecting values.
    ///
    /// `still_valid` tells whether an entry is untouched by purges: a good valid entry is not
    /// replaced by an error or by an empty body.
    ///
    /// # Errors
    /// [`NotStored::KeptGood`] if the existing entry stays, [`NotStored::Overtaken`] if it is newer.
    pub fn put(
        &self,
        entry: &Arc<Entry>,
        still_valid: impl Fn(&Entry) -> bool,
    ) -> Result<(), NotStored> {
        let mut refused = None;
        let mut dropped = 0;
        self.cache.entry(entry.digest).and_compute_with(|old| {
            let old = old.map(|found| found.into_value());
            match self.merged(old.as_deref(), entry, &still_valid) {
                Ok((slot, over)) => {
                    dropped = over;
                    Op::Put(Arc::new(slot))
                }
                Err(why) => {
                    refused = Some(why);
                    Op::Nop
                }
            }
        });
        self.counts.variants_dropped.fetch_add(dropped, Ordering::Relaxed);
        refused.map_or(Ok(()), Err)
    }

    fn merged(
        &self,
        old: Option<&Slot>,
        entry: &Arc<Entry>,
        still_valid: impl Fn(&Entry) -> bool,
    ) -> Result<(Slot, u64), NotStored> {
        let mut variants: SmallVec<[Arc<Entry>; 1]> = SmallVec::new();
        variants.push(Arc::clone(entry));
        let mut dropped = 0;
        for have in old.filter(|slot| slot.key == entry.key).iter().flat_map(|s| &s.variants) {
            if have.variant == entry.variant {
                let replaces_good = have.is_good() && !entry.is_good_enough();
                if replaces_good && still_valid(have) {
                    return Err(NotStored::KeptGood);
                }
                // A copy from another tier may have been read before this one was stored.
                if (have.born_seq, have.stored_at) > (entry.born_seq, entry.stored_at) {
                    return Err(NotStored::Overtaken);
                }
            } else if !have.variant.names().eq(entry.variant.names()) {
                // The response now varies by other fields; the newest response says by which.
                dropped += 1;
            } else if variants.len() < self.variants_max {
                variants.push(Arc::clone(have));
            } else {
                dropped += 1;
            }
        }
        Ok((Slot { key: Arc::clone(&entry.key), variants }, dropped))
    }

    /// Removes everything stored under a key.
    pub fn remove(&self, digest: u128) {
        self.cache.invalidate(&digest);
    }

    /// How many entries satisfy a condition, and whether there are more keys than the `keys_max` that
    /// were looked at. It visits every key, so that it is for operators and not for requests.
    pub fn count(&self, keys_max: usize, condition: impl Fn(&Entry) -> bool) -> (usize, bool) {
        let mut slots = self.cache.iter();
        let seen = slots.by_ref().take(keys_max);
        let count =
            seen.map(|(_, slot)| slot.variants.iter().filter(|e| condition(e)).count()).sum();
        (count, slots.next().is_some())
    }

    /// Frees what was evicted or expired. Called now and then by a background task, so that no
    /// request has to.
    pub fn run_pending_tasks(&self) {
        self.cache.run_pending_tasks();
    }

    /// Bytes held, as of the last [`MemoryTier::run_pending_tasks`].
    pub fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    /// The bound on the bytes held.
    pub fn bytes_max(&self) -> u64 {
        self.cache.policy().max_capacity().unwrap_or(0)
    }

    /// Number of keys held, as of the last [`MemoryTier::run_pending_tasks`].
    pub fn keys(&self) -> u64 {
        self.cache.entry_count()
    }

    /// Evictions and dropped variants since the start.
    pub fn counts(&self) -> &MemoryCounts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use http::{HeaderMap, HeaderValue};

    fn get(tier: &MemoryTier, like: &Entry, headers: &HeaderMap) -> Lookup {
        tier.get(Wanted::of(like.digest, &like.key, headers))
    }

    #[test]
    fn a_digest_collision_is_a_miss() {
        let tier = MemoryTier::new(1 << 20, 4);
        let stored = Arc::new(entry("ab", None, "body"));
        tier.put(&stored, |_| true).unwrap();
        assert!(matches!(get(&tier, &stored, &HeaderMap::new()), Lookup::Hit(_)));
        let other = entry("xy", None, "body");
        assert_eq!(other.digest, stored.digest);
        assert!(matches!(get(&tier, &other, &HeaderMap::new()), Lookup::Miss(Miss::Uri)));
    }

    #[test]
    fn variants_live_side_by_side_up_to_a_bound() {
        let tier = MemoryTier::new(1 << 20, 2);
        let mut last = None;
        for value in ["1", "2", "3"] {
            let stored = Arc::new(entry("k", Some(("vary", "x-v")), value));
            tier.put(&stored, |_| true).unwrap();
            last = Some(stored);
        }
        let last = last.unwrap();
        let with = |value| {
            let mut headers = HeaderMap::new();
            headers.insert("x-v", HeaderValue::from_static(value));
            get(&tier, &last, &headers)
        };
        assert!(matches!(with("3"), Lookup::Hit(found) if found.body == "3"));
        assert!(matches!(with("2"), Lookup::Hit(found) if found.body == "2"));
        assert!(matches!(with("1"), Lookup::Miss(Miss::Variant)));
        assert_eq!(tier.counts().variants_dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn entries_are_counted_up_to_a_bound_of_keys() {
        let tier = MemoryTier::new(1 << 20, 4);
        for key in ["a", "ab", "abc"] {
            tier.put(&Arc::new(entry(key, None, "body")), |_| true).unwrap();
        }
        for body in ["1", "2"] {
            tier.put(&Arc::new(entry("abcd", Some(("vary", "x-v")), body)), |_| true).unwrap();
        }
        assert_eq!(tier.count(4, |_| true), (5, false));
        assert_eq!(tier.count(9, |entry| entry.body.len() == 1), (2, false));
        assert!(tier.count(3, |_| true).1);
    }

    #[test]
    fn an_empty_body_does_not_replace_a_good_entry() {
        let tier = MemoryTier::new(1 << 20, 2);
        let good = Arc::new(entry("k", None, "good"));
        let empty = Arc::new(entry("k", None, ""));
        tier.put(&good, |_| true).unwrap();
        assert_eq!(tier.put(&empty, |_| true), Err(NotStored::KeptGood));
        assert_eq!(tier.put(&empty, |_| false), Ok(()));
    }

    #[test]
    fn the_tier_stays_within_its_bytes() {
        let tier = MemoryTier::new(100_000, 1);
        let body = "x".repeat(5_000);
        for n in 0..200 {
            let key = format!("{}{}", "k".repeat(n), n);
            tier.put(&Arc::new(entry(&key, None, &body)), |_| true).unwrap();
        }
        tier.run_pending_tasks();
        assert!(tier.bytes() <= 100_000, "{}", tier.bytes());
        assert!(tier.keys() > 0);
    }
}
