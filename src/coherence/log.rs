//! The purge log as its users see it: append an event, ask about an entry, wait for the others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_store::Entry;
use tokio::sync::watch;

use crate::Seq;
use crate::event::{Action, Content, Event, PurgeRequest};
use crate::follow::{Absorbed, Follower};
use crate::mirror::{Mirror, Verdict};
use crate::shared::SharedLog;

/// Events kept for an operator to look at.
const RECENT_MAX: usize = 256;

/// Why something could not be done with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached.
    #[error("the purge log cannot be reached: {0}")]
    Unreachable(String),
}

/// What became of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purged {
    /// It has its place in the log and is in effect in this pod.
    Applied(Event),
    /// The log cannot be reached. It is in effect in this pod, and will be appended.
    Queued,
}

/// Who has applied an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Live pods that have.
    pub applied: usize,
    /// Live pods.
    pub live: usize,
    /// Live pods that have not, or not yet.
    pub missing: Vec<String>,
    /// Whether the list of pods is known to hold all that may still serve: not within a lease of its
    /// beginning, or of the connection's.
    pub complete: bool,
}

/// What one process knows of the log: shared between those who follow it and those who ask.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mirror: Mirror,
    recent: Mutex<VecDeque<Event>>,
    applied: watch::Sender<Seq>,
    gaps: AtomicU64,
    /// Up to this position there may have been holds that this pod has not heard of.
    pub(crate) unheard: AtomicU64,
    clock: std::time::Instant,
}

impl Default for State {
    fn default() -> Self {
        State::starting_at(0)
    }
}

impl State {
    fn starting_at(seq: Seq) -> Self {
        State {
            mirror: Mirror::starting_at(seq),
            recent: Mutex::default(),
            applied: watch::Sender::new(seq),
            gaps: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            clock: std::time::Instant::now(),
        }
    }

    /// Milliseconds of the process's clock, which only goes forward.
    pub(crate) fn now(&self) -> u64 {
        self.at(std::time::Instant::now())
    }

    /// The same for a moment.
    pub(crate) fn at(&self, moment: std::time::Instant) -> u64 {
        let since = moment.saturating_duration_since(self.clock);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Applies what a shared log said.
    pub(crate) fn absorb(&self, follower: &mut Follower, record: &crate::event::Record) {
        let before = self.mirror.applied();
        let absorbed = follower.absorb(&self.mirror, record, self.now());
        let is_reset =
            record.content.as_ref().is_none_or(|content| content.action == Action::Reset);
        if absorbed != Absorbed::Known && is_reset {
            self.unheard.fetch_max(record.seq, Ordering::AcqRel);
        } else if absorbed != Absorbed::Known && record.prev != before {
            // A log that went back has lost everything up to here.
            let missing = if record.prev < before { record.seq } else { record.prev };
            self.unheard.fetch_max(missing, Ordering::AcqRel);
        }
        if absorbed == Absorbed::AfterGap {
            self.gaps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(seq = record.seq, "purge log has a gap: what was stored before is void");
        }
        if let (false, Some(content)) = (absorbed == Absorbed::Known, &record.content) {
            // Positions of a shared log are microseconds of its server's clock.
            self.remember(record.seq, record.seq / 1000, content.clone());
        }
        self.applied.send_replace(self.mirror.applied());
    }

    fn remember(&self, seq: Seq, at_unix_millis: u64, content: Content) -> Event {
        let event = Event { seq, at_unix_millis, content };
        let mut recent = self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        event
    }

    /// Waits until a position has been applied.
    pub(crate) async fn until_applied(&self, seq: Seq, limit: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= seq);
        tokio::time::timeout(limit, reached).await.is_ok_and(|reached| reached.is_ok())
    }
}

enum Order {
    /// The order of this process. Held from taking a position to applying it: a position counts as
    /// applied only when all before it have been.
    Local(tokio::sync::Mutex<Seq>),
    /// The order of a log in Redis.
    Shared(Arc<SharedLog>),
}

/// Who shares a purge log. Serialized as `pod` or `namespace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogScope {
    /// This pod alone: the log is in its memory.
    Pod,
    /// All pods of a namespace in Redis.
    Namespace,
}

/// The purge log.
pub struct PurgeLog {
    state: Arc<State>,
    order: Order,
}

impl std::fmt::Debug for PurgeLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PurgeLog").field("scope", &self.scope()).finish_non_exhaustive()
    }
}

impl PurgeLog {
    /// A log of this process alone.
    pub fn local() -> Self {
        // Later than whatever a process before this one has told its clients.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(since.as_micros()).unwrap_or(0);
        PurgeLog {
            state: Arc::new(State::starting_at(start)),
            order: Order::Local(tokio::sync::Mutex::new(start)),
        }
    }

    /// The log of a namespace.
    pub fn shared(log: Arc<SharedLog>) -> Self {
        PurgeLog { state: Arc::clone(log.state()), order: Order::Shared(log) }
    }

    /// Who shares the log.
    pub fn scope(&self) -> LogScope {
        match self.order {
            Order::Local(_) => LogScope::Pod,
            Order::Shared(_) => LogScope::Namespace,
        }
    }

    /// The shared log, if it is one.
    pub fn as_shared(&self) -> Option<&Arc<SharedLog>> {
        match &self.order {
            Order::Local(_) => None,
            Order::Shared(log) => Some(log),
        }
    }

    /// The position applied last.
    pub fn applied(&self) -> Seq {
        self.state.mirror.applied()
    }

    /// The mirror, for figures.
    pub fn mirror(&self) -> &Mirror {
        &self.state.mirror
    }

    /// How often records were missing.
    pub fn gaps(&self) -> u64 {
        self.state.gaps.load(Ordering::Relaxed)
    }

    /// What the log says about an entry now.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        self.state.mirror.verdict(entry)
    }

    /// The latest events, oldest first.
    pub fn recent(&self) -> Vec<Event> {
        let recent = self.state.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        recent.iter().cloned().collect()
    }

    /// Appends a purge. When this returns, this pod serves nothing that it forbids, whether the log
    /// could be reached or not.
    pub async fn purge(&self, request: PurgeRequest) -> Purged {
        match &self.order {
            Order::Local(order) => Purged::Applied(self.append_locally(order, request).await),
            Order::Shared(log) => log.purge(request, None).await,
        }
    }

    async fn append_locally(
        &self,
        order: &tokio::sync::Mutex<Seq>,
        request: PurgeRequest,
    ) -> Event {
        let content = Content::purge(request, None, "");
        let mut last = order.lock().await;
        *last += 1;
        let seq = *last;
        self.state.mirror.apply(seq, &content, self.state.now());
        self.state.applied.send_replace(seq);
        drop(last);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.state.remember(seq, millis, content)
    }

    /// Waits until every live pod has applied a position, at most `limit`.
    pub async fn acknowledged(&self, seq: Seq, limit: Duration) -> Acks {
        match &self.order {
            Order::Local(_) => Acks { applied: 1, live: 1, missing: Vec::new(), complete: true },
            Order::Shared(log) => log.acknowledged(seq, limit).await,
        }
    }

    /// Whether this pod knows all that the log says up to a position.
    pub fn covers(&self, seq: Seq) -> bool {
        self.applied() >= seq
            || match &self.order {
                Order::Local(_) => false,
                Order::Shared(log) => log.covers(seq),
            }
    }

    /// Waits until this pod knows all up to a position; `false` if that takes longer than `limit`,
    /// and at once where nothing more is heard of the log.
    pub async fn until_covers(&self, seq: Seq, limit: Duration) -> bool {
        if self.as_shared().is_some_and(|log| !log.is_heard()) {
            return self.covers(seq);
        }
        self.covers(seq) || self.state.until_applied(seq, limit).await || self.covers(seq)
    }

    /// Whether there may be holds that this pod has not heard of: then it neither serves nor stores
    /// what must be coherent.
    pub fn may_miss_holds(&self) -> bool {
        match &self.order {
            Order::Local(_) => false,
            Order::Shared(log) => log.may_miss_holds(),
        }
    }

    /// Whether this pod may answer from its store where consistency is strong. A log of this
    /// process alone has no other pods.
    pub fn has_lease(&self) -> bool {
        match &self.order {
            Order::Local(_) => true,
            Order::Shared(log) => log.has_lease(),
        }
    }

    /// The position of the log now: what somebody who reads the upstream now may have seen.
    pub async fn seen(&self) -> Seq {
        match &self.order {
            Order::Local(_) => self.applied(),
            Order::Shared(log) => log.seen().await,
        }
    }

    /// Whether stored responses of other pods can be judged: not before the log has been read.
    pub fn knows_others(&self) -> bool {
        match &self.order {
            Order::Local(_) => true,
            Order::Shared(log) => log.has_caught_up(),
        }
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
        PurgeRequest { matcher, mode, by: "test", reason: None, uri_digest }
    }

    #[tokio::test]
    async fn a_purge_beats_a_fill_that_was_already_on_its_way() {
        let log = PurgeLog::local();
        let born = log.applied();
        log.purge(request(Matcher::Tag("a".into()), Mode::Hard, 0)).await;
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
            log.purge(request(matcher.clone(), Mode::Soft, digest)).await;
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}");
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}, remembered");
            log.purge(request(matcher, Mode::Hard, digest)).await;
            assert_eq!(log.verdict(&hit), Verdict::Void);
        }
    }

    #[tokio::test]
    async fn too_many_matchers_void_what_is_older_than_the_older_half() {
        let log = PurgeLog::local();
        for n in 0..=crate::mirror::PREFIXES_MAX {
            let matcher = Matcher::Prefix(format!("http://other{n}/"));
            log.purge(request(matcher, Mode::Soft, 0)).await;
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
                let content = Content::purge(request(matcher, mode, u128::from(*which)), None, "");
                mirror.apply(seq, &content, 0);
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
