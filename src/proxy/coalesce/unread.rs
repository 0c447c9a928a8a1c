//! Fetches that go on although their clients have left, within bounds.
//!
//! A response that may be stored is worth having for the next client, who would otherwise begin the
//! fetch anew and perhaps leave as early. But nobody waits for it, so that there are few of these
//! fetches at a time, and they hold few bytes. How long one may go on is the pipeline's part.

use std::collections::HashSet;

use crate::sync::{Arc, Mutex, lock};

#[derive(Debug, Default)]
struct UnderWay {
    fetches: usize,
    bytes: u64,
    /// Keys of those that no request can join.
    unlisted: HashSet<u128>,
}

/// The fetches of the process that nobody reads.
#[derive(Debug)]
pub(crate) struct UnreadFetches {
    fetches_max: usize,
    bytes_max: u64,
    under_way: Mutex<UnderWay>,
}

/// The place of one of them. Its drop gives the place back.
#[derive(Debug)]
pub(crate) struct UnreadPlace {
    of: Arc<UnreadFetches>,
    bytes: u64,
    unlisted: Option<u128>,
}

impl UnreadFetches {
    /// With so many places, for so many bytes in all.
    pub(crate) fn new(fetches_max: usize, bytes_max: u64) -> Arc<Self> {
        let under_way = Mutex::default();
        Arc::new(UnreadFetches { fetches_max, bytes_max, under_way })
    }

    /// A place for a fetch; `None` without a free one. Of the fetches for an `unlisted` key, which no
    /// request can join, there is one at a time: the others would be the same work again.
    pub(crate) fn place(self: &Arc<Self>, unlisted: Option<u128>) -> Option<UnreadPlace> {
        let mut under_way = lock(&self.under_way);
        if under_way.fetches >= self.fetches_max {
            return None;
        }
        if unlisted.is_some_and(|key| !under_way.unlisted.insert(key)) {
            return None;
        }
        under_way.fetches += 1;
        Some(UnreadPlace { of: Arc::clone(self), bytes: 0, unlisted })
    }

    /// Number of places that are taken.
    pub(crate) fn len(&self) -> usize {
        lock(&self.under_way).fetches
    }
}

impl UnreadPlace {
    /// Says how many bytes the fetch holds by now; `false` if that is more than there is room for.
    pub(crate) fn hold(&mut self, bytes: u64) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let mut under_way = lock(&self.of.under_way);
        let others = under_way.bytes - self.bytes;
        let fits = others.saturating_add(bytes) <= self.of.bytes_max;
        if fits {
            under_way.bytes = others + bytes;
            self.bytes = bytes;
        }
        fits
    }
}

impl Drop for UnreadPlace {
    fn drop(&mut self) {
        let mut under_way = lock(&self.of.under_way);
        under_way.fetches -= 1;
        under_way.bytes -= self.bytes;
        if let Some(key) = &self.unlisted {
            under_way.unlisted.remove(key);
        }
    }
}
