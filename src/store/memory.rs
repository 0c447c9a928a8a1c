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
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;
use outrigger_semantics::storable::has_validator;
use outrigger_semantics::supersede::{self, Answer, Asker, Effect, Held};
use outrigger_semantics::{Lifetimes, NotStored, Recency, UnixMillis};
use smallvec::SmallVec;

use crate::departed::{Departed, Departure};
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

/// What a stored response is to an answer of this recency.
pub fn held(
    have: &Entry,
    answer: Recency,
    now: UnixMillis,
    still_valid: impl Fn(&Entry) -> bool,
) -> Held {
    let valid = still_valid(have);
    if !valid || !have.is_good() {
        return Held::Nothing;
    }
    match answer.is_older_than(have.recency, have.lifetimes.is_fresh(now)) {
        true => Held::Newer,
        false => Held::Older,
    }
}

/// Whether a stored response gives way to another one for the same requests.
fn gives_way(
    have: &Entry,
    entry: &Entry,
    now: UnixMillis,
    still_valid: impl Fn(&Entry) -> bool,
) -> Result<(), NotStored> {
    let answer = Answer::of(entry.status, Ok(()));
    let held = held(have, entry.recency, now, still_valid);
    match supersede::cell(held, answer, Asker::Anyone).effect {
        Effect::Store | Effect::Replace => Ok(()),
        Effect::StandIn => Err(NotStored::KeptGood),
        _ => Err(NotStored::Overtaken),
    }
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
    departed: Arc<Departed>,
}

impl MemoryTier {
    /// A tier that holds at most `bytes_max` bytes, and at most `variants_max` variants of a key.
    pub fn new(bytes_max: u64, variants_max: usize) -> Self {
        let counts = Arc::new(MemoryCounts::default());
        let evictions = Arc::clone(&counts);
        let departed = Arc::new(Departed::default());
        let leaving = Arc::clone(&departed);
        let cache = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &u128, slot: &Arc<Slot>| slot.weight())
            .expire_after(Usefulness)
            .eviction_listener(move |digest, _, cause| match cause {
                RemovalCause::Size => {
                    evictions.evicted.fetch_add(1, Ordering::Relaxed);
                    leaving.note(*digest, Departure::Evicted);
                }
                RemovalCause::Expired => leaving.note(*digest, Departure::Expired),
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build_with_hasher(BuildDigestHasher::default());
        MemoryTier { cache, variants_max: variants_max.max(1), counts, departed }
    }

    /// Looks for a stored response whose selecting fields match. Waits for nothing.
    pub fn get(&self, wanted: Wanted<'_>) -> Lookup {
        let found = self.peek(wanted);
        if let Lookup::Hit(entry) = &found {
            entry.note_hit();
        }
        found
    }

    /// The same for those who only look: it does not count as a use of what is found.
    pub fn peek(&self, wanted: Wanted<'_>) -> Lookup {
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

    /// Stores a response, replacing the one with the same selecting values as the table of
    /// [`supersede`] says.
    ///
    /// `still_valid` tells whether an entry is untouched by purges: one that is not gives way to all.
    ///
    /// # Errors
    /// [`NotStored::KeptGood`] if a server error would have replaced it, [`NotStored::Overtaken`] if
    /// what is there is more recent.
    pub fn put(
        &self,
        entry: &Arc<Entry>,
        now: UnixMillis,
        still_valid: impl Fn(&Entry) -> bool,
    ) -> Result<(), NotStored> {
        let mut refused = None;
        let mut dropped = 0;
        self.cache.entry(entry.digest).and_compute_with(|old| {
            let old = old.map(|found| found.into_value());
            match self.merged(old.as_deref(), entry, now, &still_valid) {
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
        now: UnixMillis,
        still_valid: impl Fn(&Entry) -> bool,
    ) -> Result<(Slot, u64), NotStored> {
        let mut variants: SmallVec<[Arc<Entry>; 1]> = SmallVec::new();
        variants.push(Arc::clone(entry));
        let mut dropped = 0;
        for have in old.filter(|slot| slot.key == entry.key).iter().flat_map(|s| &s.variants) {
            let same_names = have.variant.names().eq(entry.variant.names());
            if have.variant == entry.variant || !same_names {
                gives_way(have, entry, now, &still_valid)?;
                if same_names {
                    // What takes the place of a useful variant is taken for useful.
                    let hits = have.hits.load(Ordering::Relaxed);
                    entry.hits.fetch_max(hits / 2, Ordering::Relaxed);
                }
                // The response now varies by other fields; the most recent one says by which.
                dropped += u64::from(!same_names);
            } else {
                variants.push(Arc::clone(have));
            }
        }
        while variants.len() > self.variants_max {
            // The one that was asked for least, of those the one stored first; never the new one.
            let hits = |entry: &Arc<Entry>| entry.hits.load(Ordering::Relaxed);
            let least = (1..variants.len()).rev().min_by_key(|at| hits(&variants[*at]));
            variants.remove(least.unwrap_or(0));
            dropped += 1;
        }
        Ok((Slot { key: Arc::clone(&entry.key), variants }, dropped))
    }

    /// Ends uses of a stored response, if it is not more recent than the answer that does so: `change`
    /// makes its new lifetimes of the old ones. Returns what is stored now; `None` if it was left
    /// as it was.
    pub fn supersede(
        &self,
        wanted: Wanted<'_>,
        recency: Recency,
        now: UnixMillis,
        change: impl Fn(Lifetimes) -> Lifetimes,
    ) -> Option<Arc<Entry>> {
        let mut ended = None;
        self.cache.entry(wanted.digest).and_compute_with(|old| {
            let old = old.map(moka::Entry::into_value).filter(|slot| *slot.key == *wanted.key);
            let Some(slot) = old else { return Op::Nop };
            let mut variants = slot.variants.clone();
            let found = variants.iter_mut().find(|entry| entry.variant.matches(wanted.headers));
            let Some(entry) = found.filter(|entry| entry.part.is_none()) else { return Op::Nop };
            if recency.is_older_than(entry.recency, entry.lifetimes.is_fresh(now)) {
                return Op::Nop;
            }
            let lifetimes = change(entry.lifetimes);
            if lifetimes == entry.lifetimes {
                return Op::Nop;
            }
            *entry = Arc::new(entry.superseded(lifetimes, recency, now));
            ended = Some(Arc::clone(entry));
            Op::Put(Arc::new(Slot { key: Arc::clone(&slot.key), variants }))
        });
        ended
    }

    /// Removes a response if it is still the one that is stored.
    pub fn remove_if_same(&self, entry: &Entry) {
        self.cache.entry(entry.digest).and_compute_with(|old| {
            let Some(slot) = old.map(moka::Entry::into_value) else { return Op::Nop };
            let is_it = |have: &Entry| {
                have.recency == entry.recency
                    && have.variant == entry.variant
                    && have.stored_at == entry.stored_at
            };
            if slot.key != entry.key || !slot.variants.iter().any(|have| is_it(have)) {
                return Op::Nop;
            }
            let mut variants = slot.variants.clone();
            variants.retain(|have| !is_it(have));
            if variants.is_empty() {
                return Op::Remove;
            }
            Op::Put(Arc::new(Slot { key: Arc::clone(&slot.key), variants }))
        });
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

    /// Why a key that is not held has left, if it did so lately.
    pub fn departure(&self, digest: u128) -> Option<Departure> {
        self.departed.why(digest)
    }

    /// How many variants of a key are held.
    pub fn variants(&self, wanted: Wanted<'_>) -> usize {
        let slot = self.cache.get(&wanted.digest).filter(|slot| *slot.key == *wanted.key);
        slot.map_or(0, |slot| slot.variants.len())
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
        tier.put(&stored, UnixMillis(0), |_| true).unwrap();
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
            tier.put(&stored, UnixMillis(0), |_| true).unwrap();
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
    fn variants_that_nobody_asks_for_do_not_push_out_those_that_are_asked_for() {
        let tier = MemoryTier::new(1 << 20, 4);
        let put = |value: &str| {
            let stored = Arc::new(entry("k", Some(("vary", "x-v")), value));
            tier.put(&stored, UnixMillis(0), |_| true).unwrap();
            stored
        };
        let like = put("de");
        put("en");
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-v", HeaderValue::from_str(value).unwrap());
            matches!(get(&tier, &like, &headers), Lookup::Hit(_))
        };
        assert!(ask("de") && ask("en"));
        for n in 0..2_000 {
            put(&n.to_string());
        }
        assert!(ask("de") && ask("en") && ask("1999"));
        assert!(!ask("1000"));
        // A refresh leaves them their use.
        put("de");
        for n in 0..100 {
            put(&n.to_string());
        }
        assert!(ask("de"));
    }

    #[test]
    fn entries_are_counted_up_to_a_bound_of_keys() {
        let tier = MemoryTier::new(1 << 20, 4);
        for key in ["a", "ab", "abc"] {
            tier.put(&Arc::new(entry(key, None, "body")), UnixMillis(0), |_| true).unwrap();
        }
        for body in ["1", "2"] {
            tier.put(&Arc::new(entry("abcd", Some(("vary", "x-v")), body)), UnixMillis(0), |_| {
                true
            })
            .unwrap();
        }
        assert_eq!(tier.count(4, |_| true), (5, false));
        assert_eq!(tier.count(9, |entry| entry.body.len() == 1), (2, false));
        assert!(tier.count(3, |_| true).1);
    }

    /// A response under one key, as recent as `date` and `requested_at` say, milliseconds.
    fn recent(date: i64, requested_at: i64, body: &str) -> Entry {
        let mut entry = entry("k", None, body);
        entry.recency = Recency { date: UnixMillis(date), requested_at: UnixMillis(requested_at) };
        entry
    }

    fn body(tier: &MemoryTier, like: &Entry) -> String {
        match get(tier, like, &HeaderMap::new()) {
            Lookup::Hit(found) => String::from_utf8_lossy(&found.body).into_owned(),
            _ => "nothing".to_owned(),
        }
    }

    #[test]
    fn an_older_response_does_not_replace_a_more_recent_one() {
        let tier = MemoryTier::new(1 << 20, 2);
        let newer = Arc::new(recent(5_000, 5_100, "newer"));
        tier.put(&newer, UnixMillis(0), |_| true).unwrap();
        for (date, requested_at) in [(4_000, 4_000), (4_000, 6_000), (5_000, 5_099)] {
            let older = Arc::new(recent(date, requested_at, "older"));
            let refused = tier.put(&older, UnixMillis(0), |_| true);
            assert_eq!(refused, Err(NotStored::Overtaken), "{date} {requested_at}");
        }
        assert_eq!(body(&tier, &newer), "newer");
        let next = Arc::new(recent(5_000, 5_100, "next"));
        tier.put(&next, UnixMillis(0), |_| true).unwrap();
        assert_eq!(body(&tier, &newer), "next");
    }

    #[test]
    fn what_a_purge_has_met_gives_way_to_an_older_response() {
        let tier = MemoryTier::new(1 << 20, 2);
        tier.put(&Arc::new(recent(5_000, 5_100, "purged")), UnixMillis(0), |_| true).unwrap();
        let older = Arc::new(recent(4_000, 4_000, "older"));
        assert_eq!(tier.put(&older, UnixMillis(0), |_| false), Ok(()));
        assert_eq!(body(&tier, &older), "older");
    }

    #[test]
    fn an_older_response_with_other_vary_fields_does_not_drop_newer_variants() {
        let tier = MemoryTier::new(1 << 20, 4);
        let mut newer = entry("k", Some(("vary", "x-v")), "newer");
        newer.recency.requested_at = UnixMillis(9);
        let newer = Arc::new(newer);
        tier.put(&newer, UnixMillis(0), |_| true).unwrap();
        let older = Arc::new(recent(0, 1, "older"));
        assert_eq!(tier.put(&older, UnixMillis(0), |_| true), Err(NotStored::Overtaken));
        assert_eq!(tier.count(9, |_| true), (1, false));
    }

    #[test]
    fn a_newer_empty_response_replaces_the_old_body() {
        let tier = MemoryTier::new(1 << 20, 2);
        tier.put(&Arc::new(recent(1_000, 1_000, "good")), UnixMillis(0), |_| true).unwrap();
        let empty = Arc::new(recent(2_000, 2_000, ""));
        assert_eq!(tier.put(&empty, UnixMillis(0), |_| true), Ok(()));
        assert_eq!(body(&tier, &empty), "");
    }

    #[test]
    fn a_server_error_replaces_only_what_a_purge_has_met_and_other_errors() {
        let tier = MemoryTier::new(1 << 20, 2);
        let error = |at, body| {
            let mut error = recent(at, at, body);
            error.status = http::StatusCode::SERVICE_UNAVAILABLE;
            Arc::new(error)
        };
        tier.put(&Arc::new(recent(1_000, 1_000, "good")), UnixMillis(0), |_| true).unwrap();
        let refused = tier.put(&error(2_000, "error"), UnixMillis(0), |_| true);
        assert_eq!(refused, Err(NotStored::KeptGood));
        tier.put(&error(3_000, "error"), UnixMillis(0), |_| false).unwrap();
        tier.put(&error(4_000, "next error"), UnixMillis(0), |_| true).unwrap();
        assert_eq!(body(&tier, &error(0, "")), "next error");
    }

    #[test]
    fn a_superseded_response_keeps_its_body_only_for_validation() {
        let tier = MemoryTier::new(1 << 20, 2);
        let mut validated = entry("k", Some(("etag", "\"a\"")), "body");
        validated.recency = Recency { date: UnixMillis(5_000), requested_at: UnixMillis(5_000) };
        let validated = Arc::new(validated);
        tier.put(&validated, UnixMillis(0), |_| true).unwrap();
        let headers = HeaderMap::new();
        let wanted = Wanted::of(validated.digest, &validated.key, &headers);
        let at = |at| Recency { date: UnixMillis(at), requested_at: UnixMillis(at) };
        // An answer that was asked for before says nothing about it.
        let late = tier.supersede(wanted, at(4_000), UnixMillis(0), Lifetimes::invalidated);
        assert!(late.is_none());
        let ended = tier.supersede(wanted, at(6_000), UnixMillis(0), Lifetimes::invalidated);
        let ended = ended.unwrap();
        assert!(ended.lifetimes.invalid && ended.is_of_use() && ended.recency == at(6_000));
        assert_eq!(body(&tier, &validated), "body");
        let plain = Arc::new(recent(7_000, 7_000, "body"));
        tier.put(&plain, UnixMillis(0), |_| true).unwrap();
        let ended = tier.supersede(wanted, at(8_000), UnixMillis(0), Lifetimes::invalidated);
        assert!(ended.is_some_and(|ended| !ended.is_of_use() && ended.body.is_empty()));
        tier.remove_if_same(&plain);
        assert_eq!(body(&tier, &plain), "");
    }

    #[test]
    fn the_tier_stays_within_its_bytes() {
        let tier = MemoryTier::new(100_000, 1);
        let body = "x".repeat(5_000);
        for n in 0..200 {
            let key = format!("{}{}", "k".repeat(n), n);
            tier.put(&Arc::new(entry(&key, None, &body)), UnixMillis(0), |_| true).unwrap();
        }
        tier.run_pending_tasks();
        assert!(tier.bytes() <= 100_000, "{}", tier.bytes());
        assert!(tier.keys() > 0);
    }
}
