//! Which keys are hot: a sample of this pod's hits. The sample is added up over all pods in Redis,
//! so that a pod that starts can ask for the hottest.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::clock::now_ms;

/// Number of names noted between two flushes.
const NAMES_MAX: usize = 4096;
/// Span of time over which one sum is kept, milliseconds.
pub(super) const BUCKET_MS: i64 = 300_000;

/// Hits noted since the last flush.
#[derive(Debug, Default)]
pub(super) struct HotKeys {
    hits: Mutex<HashMap<Vec<u8>, u32>>,
}

impl HotKeys {
    /// Notes a hit. The note is lost rather than waiting for another request.
    pub(super) fn note(&self, name: Vec<u8>) {
        let Some(mut hits) = self.hits.try_lock() else { return };
        if hits.len() < NAMES_MAX || hits.contains_key(&name) {
            *hits.entry(name).or_default() += 1;
        }
    }

    /// Takes the hits noted since the last time.
    pub(super) fn take(&self) -> HashMap<Vec<u8>, u32> {
        std::mem::take(&mut self.hits.lock())
    }
}

/// Number of the span of time that is now.
pub(super) fn bucket() -> u64 {
    now_ms().div_euclid(BUCKET_MS).unsigned_abs()
}
