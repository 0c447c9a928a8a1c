//! The URIs that events name, under the policy of this pod.
//!
//! An event carries a URI as it was sent, and each pod finds out by its own policy under which
//! canonical URIs its stored responses may be: during a rollout pods have different policies. The
//! URIs are remembered, since the next policy may give others for the same event.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::Seq;
use crate::event::{PurgeMode, TEXT_BYTES_MAX};
use crate::marks::Marks;

/// A policy, as far as it decides under which canonical URIs a response is stored.
pub trait Canonicaliser: Debug + Send + Sync {
    /// The digest of every canonical URI that a stored response for this URI can have; none if it
    /// cannot be read.
    fn digests(&self, uri: &str) -> Vec<u128>;

    /// A hash of what decides about them: equal hashes give equal digests for every URI.
    fn rules(&self) -> u128;
}

/// URIs are remembered up to so many bytes. Of more, the older half is forgotten: the next policy
/// with other rules then purges what is older than that.
const SENT_BYTES_MAX: usize = 8 << 20;
/// What one costs besides its text, roughly.
const SENT_BYTES_EACH: usize = 64;

/// The URIs of events that were applied, as they were sent.
#[derive(Debug, Default)]
pub(crate) struct SentUris {
    marks: HashMap<Box<str>, Marks>,
    bytes: usize,
    /// Up to this position there were URIs that are not here.
    forgotten: Seq,
}

impl SentUris {
    /// Notes that an event has named a URI.
    pub(crate) fn note(&mut self, uri: &str, mode: PurgeMode, seq: Seq) {
        // An older pod cuts long URIs off.
        if uri.len() > TEXT_BYTES_MAX || uri.is_empty() || uri.ends_with('…') {
            self.forgotten = self.forgotten.max(seq);
            return;
        }
        if let Some(marks) = self.marks.get_mut(uri) {
            return marks.set(mode, seq);
        }
        let mut marks = Marks::default();
        marks.set(mode, seq);
        self.bytes += uri.len() + SENT_BYTES_EACH;
        self.marks.insert(uri.into(), marks);
        if self.bytes > SENT_BYTES_MAX {
            self.shed();
        }
    }

    fn shed(&mut self) {
        let mut positions: Vec<Seq> = self.marks.values().map(Marks::latest).collect();
        let middle = positions.len() / 2;
        let (_, until, _) = positions.select_nth_unstable(middle);
        self.forget(*until);
    }

    /// Forgets what was named up to a position.
    fn forget(&mut self, until: Seq) {
        self.marks.retain(|_, marks| marks.latest() > until);
        self.bytes = self.marks.keys().map(|uri| uri.len() + SENT_BYTES_EACH).sum();
        self.forgotten = self.forgotten.max(until);
    }

    /// Forgets what was named up to a position, since everything from before it is purged.
    pub(crate) fn purged(&mut self, until: Seq) {
        let forgotten = self.forgotten;
        self.forget(until);
        self.forgotten = if forgotten > until { forgotten } else { 0 };
    }

    /// The URIs with their positions.
    pub(crate) fn all(&self) -> Vec<(Box<str>, Marks)> {
        self.marks.iter().map(|(uri, marks)| (uri.clone(), *marks)).collect()
    }

    /// Up to this position not every URI is known; zero if all are.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_uris_are_forgotten_by_their_older_half() {
        let mut sent = SentUris::default();
        let long = "x".repeat(TEXT_BYTES_MAX - 20);
        let count = (SENT_BYTES_MAX / TEXT_BYTES_MAX) as u64 + 100;
        for n in 1..=count {
            sent.note(&format!("http://h/{long}{n}"), PurgeMode::Hard, n);
        }
        let forgotten = sent.forgotten();
        assert!(forgotten > count / 3 && forgotten < count, "{forgotten} of {count}");
        assert_eq!(sent.all().len() as u64, count - forgotten);
        assert!(sent.bytes <= SENT_BYTES_MAX);
    }

    #[test]
    fn what_was_cut_off_counts_as_forgotten() {
        let mut sent = SentUris::default();
        sent.note("http://h/a", PurgeMode::Soft, 1);
        assert_eq!(sent.forgotten(), 0);
        sent.note("http://h/long…", PurgeMode::Hard, 2);
        assert_eq!((sent.forgotten(), sent.all().len()), (2, 1));
        sent.purged(2);
        assert_eq!((sent.forgotten(), sent.all().len()), (0, 0));
    }
}
