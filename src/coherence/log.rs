//! The purge log as its users see it: append an event, ask about an entry.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use outrigger_store::Entry;

use crate::Seq;
use crate::event::{Event, PurgeRequest};
use crate::mirror::{Mirror, Verdict};

/// Events kept for an operator to look at.
const RECENT_MAX: usize = 256;

/// Why an event got no place in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The log cannot be reached.
    #[error("the purge log cannot be reached: {0}")]
    Unreachable(String),
}

/// Gives events their place in the total order.
#[async_trait]
pub trait Sequence: Send + Sync {
    /// Who shares the order: `pod`, or a wider circle.
    fn scope(&self) -> &'static str;

    /// The next position for this event.
    ///
    /// # Errors
    /// When the event could not be appended; it has then no effect anywhere.
    async fn append(&self, request: &PurgeRequest) -> Result<Seq, SequenceError>;
}

/// The order of one process.
#[derive(Debug, Default)]
pub struct LocalSequence(std::sync::atomic::AtomicU64);

#[async_trait]
impl Sequence for LocalSequence {
    fn scope(&self) -> &'static str {
        "pod"
    }

    async fn append(&self, _: &PurgeRequest) -> Result<Seq, SequenceError> {
        Ok(self.0.fetch_add(1, std::sync::atomic::Ordering::AcqRel) + 1)
    }
}

/// The purge log.
pub struct PurgeLog {
    sequence: Box<dyn Sequence>,
    /// Held from getting a position to applying it: a position counts as applied only when all
    /// before it have been.
    order: tokio::sync::Mutex<()>,
    mirror: Mirror,
    recent: Mutex<VecDeque<Event>>,
}

impl std::fmt::Debug for PurgeLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PurgeLog").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}

impl PurgeLog {
    /// A log ordered by `sequence`.
    pub fn new(sequence: Box<dyn Sequence>) -> Self {
        PurgeLog {
            sequence,
            order: tokio::sync::Mutex::default(),
            mirror: Mirror::default(),
            recent: Mutex::default(),
        }
    }

    /// A log of this process alone.
    pub fn local() -> Self {
        Self::new(Box::new(LocalSequence::default()))
    }

    /// Who shares the log.
    pub fn scope(&self) -> &'static str {
        self.sequence.scope()
    }

    /// The position applied last.
    pub fn applied(&self) -> Seq {
        self.mirror.applied()
    }

    /// The mirror, for figures.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Appends an event and applies it here. When this returns, this pod serves nothing that the
    /// event forbids.
    ///
    /// # Errors
    /// When the event could not be appended.
    pub async fn purge(&self, request: PurgeRequest) -> Result<Event, SequenceError> {
        let ordered = self.order.lock().await;
        let seq = self.sequence.append(&request).await?;
        self.mirror.apply(seq, &request.matcher, request.uri_digest, request.mode);
        drop(ordered);
        let event = Event { seq, matcher: request.matcher, mode: request.mode, by: request.by };
        let mut recent = self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        Ok(event)
    }

    /// What the log says about an entry now.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        self.mirror.verdict(entry)
    }

    /// The latest events, oldest first.
    pub fn recent(&self) -> Vec<Event> {
        let recent = self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        recent.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Matcher, Mode};
    use outrigger_semantics::{FreshnessSource, Lifetimes, UnixMillis, Variant};
    use outrigger_store::entry::Draft;

    fn entry(uri: &str, uri_digest: u128, tag: &str, born_seq: Seq) -> Entry {
        let mut headers = http::HeaderMap::new();
        headers.insert("cache-tag", http::HeaderValue::from_str(tag).unwrap());
        Entry::new(Draft {
            key: uri.as_bytes(),
            digest: uri_digest,
            uri_len: uri.len(),
            uri_digest,
            status: http::StatusCode::OK,
            headers: &headers,
            omit: &[],
            body: bytes::Bytes::from_static(b"x"),
            part: None,
            variant: Variant::default(),
            lifetimes: Lifetimes {
                born: UnixMillis(0),
                fresh_until: UnixMillis(1),
                stale_while_revalidate_until: UnixMillis(1),
                stale_if_error_until: UnixMillis(1),
                no_cache: false,
                forbids_stale: false,
                immutable: false,
                source: FreshnessSource::MaxAge,
            },
            log: outrigger_store::entry::LogSpan { born: born_seq, seen: born_seq },
            policy_epoch: 0,
            now: UnixMillis(0),
            fetch_millis: 0,
        })
    }

    fn request(matcher: Matcher, mode: Mode, uri_digest: u128) -> PurgeRequest {
        PurgeRequest { matcher, mode, by: "test", uri_digest }
    }

    #[tokio::test]
    async fn a_purge_beats_a_fill_that_was_already_on_its_way() {
        let log = PurgeLog::local();
        let born = log.applied();
        log.purge(request(Matcher::Tag("a".into()), Mode::Hard, 0)).await.unwrap();
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", born)), Verdict::Void);
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", log.applied())), Verdict::Valid);
        assert_eq!(log.verdict(&entry("http://h/", 1, "b", born)), Verdict::Valid);
    }

    #[tokio::test]
    async fn every_matcher_finds_its_entries() {
        for (matcher, digest) in [
            (Matcher::Url("http://h/a".into()), 5),
            (Matcher::Tag("t".into()), 0),
            (Matcher::Prefix("http://h/".into()), 0),
            (Matcher::All, 0),
        ] {
            let log = PurgeLog::local();
            let hit = entry("http://h/a", 5, "t", 0);
            assert_eq!(log.verdict(&hit), Verdict::Valid);
            log.purge(request(matcher.clone(), Mode::Soft, digest)).await.unwrap();
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}");
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}, remembered");
            log.purge(request(matcher, Mode::Hard, digest)).await.unwrap();
            assert_eq!(log.verdict(&hit), Verdict::Void);
        }
    }

    #[tokio::test]
    async fn too_many_matchers_void_what_is_older_than_the_older_half() {
        let log = PurgeLog::local();
        for n in 0..=crate::mirror::PREFIXES_MAX {
            let matcher = Matcher::Prefix(format!("http://other{n}/"));
            log.purge(request(matcher, Mode::Soft, 0)).await.unwrap();
        }
        assert_eq!(log.mirror().collapses(), 1);
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", 0)), Verdict::Void);
        let younger = log.applied() - 10;
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", younger)), Verdict::Valid);
    }

    proptest::proptest! {
        /// Whatever the order of purges and fills: an entry is valid exactly if no event that
        /// matches it came after its fetch began.
        #[test]
        fn validity_is_exactly_what_the_log_says(
            events in proptest::collection::vec((0u8..3, 0u8..3, proptest::bool::ANY), 0..12),
            born in 0u64..14,
        ) {
            let mirror = Mirror::default();
            let subject = entry("http://h/1", 1, "1", born);
            let (mut hard, mut soft) = (false, false);
            for (at, (kind, which, is_hard)) in events.iter().enumerate() {
                let seq = at as u64 + 1;
                let matcher = match kind {
                    0 => Matcher::Url(String::new()),
                    1 => Matcher::Tag(which.to_string()),
                    _ => Matcher::Prefix(format!("http://h/{which}")),
                };
                let mode = if *is_hard { Mode::Hard } else { Mode::Soft };
                mirror.apply(seq, &matcher, u128::from(*which), mode);
                if *which == 1 && seq > born {
                    hard |= *is_hard;
                    soft |= !*is_hard;
                }
                let expected = if hard { Verdict::Void } else if soft { Verdict::Soft } else { Verdict::Valid };
                proptest::prop_assert_eq!(mirror.verdict(&subject), expected);
            }
        }
    }
}
