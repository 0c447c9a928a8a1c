//! The purge log as its users see it: append an event, ask about an entry, wait for other pods.
//!
//! The proxy knows this type alone, whether the log belongs to this process or to a namespace.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_store::Entry;

use crate::Seq;
use crate::canonical::Canonicaliser;
use crate::event::{Content, Event, PurgeRequest};
use crate::mirror::{Mirror, Verdict};
use crate::redis::RedisLog;
use crate::state::{Acks, Purged, State};

/// Who shares a purge log. Serialized as `pod` or `namespace`, which is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogScope {
    /// This process alone: the log is in its memory.
    Pod,
    /// All pods of a namespace.
    Namespace,
}

enum Order {
    /// The order of this process. Held from taking a position to applying it: a position counts as
    /// applied only when all before it have been.
    Local(tokio::sync::Mutex<Seq>),
    /// The order of a log in Redis.
    Redis(Arc<RedisLog>),
}

/// The purge log, as one process uses it.
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
    /// A log of this process alone. Its positions begin at the wall clock.
    pub fn local() -> Self {
        // Later than whatever a process before this one has told its clients.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(since.as_micros()).unwrap_or(0);
        PurgeLog {
            state: Arc::new(State::starting_at(start)),
            order: Order::Local(tokio::sync::Mutex::new(start)),
        }
    }

    /// The log of a namespace, which lives in Redis.
    pub fn in_redis(log: Arc<RedisLog>) -> Self {
        PurgeLog { state: Arc::clone(log.state()), order: Order::Redis(log) }
    }

    /// Who shares the log.
    pub fn scope(&self) -> LogScope {
        match self.order {
            Order::Local(_) => LogScope::Pod,
            Order::Redis(_) => LogScope::Namespace,
        }
    }

    /// The log in Redis, if this is one.
    pub fn as_redis(&self) -> Option<&Arc<RedisLog>> {
        match &self.order {
            Order::Local(_) => None,
            Order::Redis(log) => Some(log),
        }
    }

    /// The position applied last.
    pub fn applied(&self) -> Seq {
        self.state.mirror.applied()
    }

    /// Whether the log has, after a position and up to `last`, so many events and no other. Known only
    /// of the log of one process, whose positions are counted; of any other it is `false`.
    pub fn is_run(&self, after: Seq, events: u64, last: Seq) -> bool {
        self.scope() == LogScope::Pod && last == after.saturating_add(events)
    }

    /// The mirror: what the log has said so far.
    pub fn mirror(&self) -> &Mirror {
        &self.state.mirror
    }

    /// Makes a policy decide about the URIs of events, those that were applied before included.
    /// `put_in_force` hands it to the data path, and is called between the moment from which the
    /// policy counts and that from which the one before counts no more.
    pub fn follow_policy(&self, policy: Arc<dyn Canonicaliser>, put_in_force: impl FnOnce()) {
        self.state.mirror.follow(policy, put_in_force);
    }

    /// How often records were missing.
    pub fn gaps(&self) -> u64 {
        self.state.gaps()
    }

    /// What the log says about an entry now.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        self.state.mirror.verdict(entry)
    }

    /// The latest events, oldest first.
    pub fn recent(&self) -> Vec<Event> {
        self.state.recent()
    }

    /// Appends a purge. When this returns, this pod serves nothing that it forbids, whether the log
    /// could be reached or not.
    pub async fn purge(&self, request: PurgeRequest) -> Purged {
        match &self.order {
            Order::Local(order) => Purged::Applied(self.append_locally(order, request).await),
            Order::Redis(log) => log.purge(request, None).await,
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
        self.state.apply_own(seq, &content);
        drop(last);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.state.remember(seq, millis, content)
    }

    /// Waits until every live pod has applied a position, at most `limit`.
    pub async fn acknowledged(&self, seq: Seq, limit: Duration) -> Acks {
        match &self.order {
            Order::Local(_) => Acks { applied: 1, live: 1, missing: Vec::new(), complete: true },
            Order::Redis(log) => log.acknowledged(seq, limit).await,
        }
    }

    /// Whether this pod knows all that the log says up to a position.
    pub fn covers(&self, seq: Seq) -> bool {
        self.applied() >= seq
            || match &self.order {
                Order::Local(_) => false,
                Order::Redis(log) => log.covers(seq),
            }
    }

    /// Waits until this pod knows all up to a position; `false` if that takes longer than `limit`,
    /// and at once where nothing more is heard of the log.
    pub async fn until_covers(&self, seq: Seq, limit: Duration) -> bool {
        if self.as_redis().is_some_and(|log| !log.is_heard()) {
            return self.covers(seq);
        }
        self.covers(seq) || self.state.until_applied(seq, limit).await || self.covers(seq)
    }

    /// Whether there may be holds that this pod has not heard of: then it neither serves nor stores
    /// what must be coherent.
    pub fn may_miss_holds(&self) -> bool {
        match &self.order {
            Order::Local(_) => false,
            Order::Redis(log) => log.may_miss_holds(),
        }
    }

    /// Whether this pod may answer from its store where consistency is strong. A log of this
    /// process alone has no other pods.
    pub fn has_lease(&self) -> bool {
        match &self.order {
            Order::Local(_) => true,
            Order::Redis(log) => log.has_lease(),
        }
    }

    /// The position of the log now: what somebody who reads the upstream now may have seen.
    pub async fn seen(&self) -> Seq {
        match &self.order {
            Order::Local(_) => self.applied(),
            Order::Redis(log) => log.seen().await,
        }
    }

    /// Whether stored responses of other pods can be judged: not before the log has been read.
    pub fn knows_others(&self) -> bool {
        match &self.order {
            Order::Local(_) => true,
            Order::Redis(log) => log.has_caught_up(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Matcher, PurgeMode};
    use outrigger_semantics::{FreshnessSource, Lifetimes, Recency, UnixMillis, Variant};
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
                invalid: false,
                forbids_stale: false,
                immutable: false,
                policy_alone: false,
                source: FreshnessSource::MaxAge,
            },
            log: outrigger_store::entry::LogSpan { born: born_seq, seen: born_seq },
            rules_fingerprint: 0,
            recency: Recency::default(),
            now: UnixMillis(0),
            fetch_millis: 0,
        })
    }

    fn request(matcher: Matcher, mode: PurgeMode) -> PurgeRequest {
        PurgeRequest { matcher, mode, by: "test", reason: None }
    }

    fn url(uri: &str, digest: u128) -> Matcher {
        Matcher::Url { uri: uri.to_owned(), digests: vec![digest], rules: None }
    }

    #[tokio::test]
    async fn a_purge_beats_a_fill_that_was_already_on_its_way() {
        let log = PurgeLog::local();
        let born = log.applied();
        log.purge(request(Matcher::Tag("a".into()), PurgeMode::Hard)).await;
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", born)), Verdict::Purged);
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", log.applied())), Verdict::Valid);
        assert_eq!(log.verdict(&entry("http://h/", 1, "b", born)), Verdict::Valid);
    }

    #[tokio::test]
    async fn every_matcher_finds_its_entries() {
        for matcher in [
            url("http://h/a", 5),
            Matcher::Tag("t".into()),
            Matcher::Prefix("http://h/".into()),
            Matcher::All,
        ] {
            let log = PurgeLog::local();
            let hit = entry("http://h/a", 5, "t", 0);
            assert_eq!(log.verdict(&hit), Verdict::Valid);
            log.purge(request(matcher.clone(), PurgeMode::Soft)).await;
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}");
            assert_eq!(log.verdict(&hit), Verdict::Soft, "{matcher:?}, remembered");
            log.purge(request(matcher, PurgeMode::Hard)).await;
            assert_eq!(log.verdict(&hit), Verdict::Purged);
        }
    }

    #[tokio::test]
    async fn too_many_matchers_void_what_is_older_than_the_older_half() {
        let log = PurgeLog::local();
        for n in 0..=crate::mirror::PREFIXES_MAX {
            let matcher = Matcher::Prefix(format!("http://other{n}/"));
            log.purge(request(matcher, PurgeMode::Soft)).await;
        }
        assert_eq!(log.mirror().collapses(), 1);
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", 0)), Verdict::Purged);
        let younger = log.applied() - 10;
        assert_eq!(log.verdict(&entry("http://h/", 1, "a", younger)), Verdict::Valid);
    }

    /// A policy that adds a number to the length of a URI.
    #[derive(Debug)]
    struct Adds(u128);

    impl Canonicaliser for Adds {
        fn digests(&self, uri: &str) -> Vec<u128> {
            vec![uri.len() as u128 + self.0]
        }

        fn prefixes(&self, text: &str) -> Vec<String> {
            vec![text.replacen("http://h", &format!("http://h{}", self.0), 1)]
        }

        fn rules(&self) -> u128 {
            self.0
        }
    }

    #[tokio::test]
    async fn the_pod_that_applies_an_event_says_what_its_uri_is() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let (own, writers) = (entry("http://h/x", 110, "", 0), entry("http://h/x", 5, "", 0));
        log.purge(request(url("http://h/x", 5), PurgeMode::Hard)).await;
        for entry in [&own, &writers] {
            assert_eq!(log.verdict(entry), Verdict::Purged);
        }
        assert_eq!(log.verdict(&entry("http://h/y", 10, "", 0)), Verdict::Valid);
    }

    #[tokio::test]
    async fn the_next_policy_finds_what_was_purged_before_it() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let before = log.applied();
        log.purge(request(url("http://h/x", 5), PurgeMode::Hard)).await;
        log.purge(request(url("http://h/soft", 6), PurgeMode::Soft)).await;
        let (hard, soft) = (entry("", 210, "", before), entry("", 213, "", before));
        let younger = entry("", 210, "", log.applied());
        for entry in [&hard, &soft, &younger] {
            assert_eq!(log.verdict(entry), Verdict::Valid, "checked, and remembered as valid");
        }
        log.follow_policy(Arc::new(Adds(200)), || {
            // While one follows the other, both count.
            assert_eq!(log.verdict(&hard), Verdict::Purged);
            assert_eq!(log.verdict(&entry("", 110, "", before)), Verdict::Purged);
        });
        assert_eq!(log.verdict(&hard), Verdict::Purged);
        assert_eq!(log.verdict(&soft), Verdict::Soft);
        assert_eq!(log.verdict(&younger), Verdict::Valid);
    }

    #[tokio::test]
    async fn a_uri_that_was_cut_is_exact_under_the_rules_of_its_writer() {
        let long = format!("http://h/a?{}", "x".repeat(3000));
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let before = log.applied();
        log.purge(request(Matcher::url(long, vec![5], 100), PurgeMode::Hard)).await;
        let named = entry("http://h100/a?y", 5, "", before);
        let of_path = ["http://h200/a", "http://h200/a?other"].map(|uri| entry(uri, 6, "", before));
        let others = ["http://h200/ab", "http://h200/", "http://h100/a"]
            .map(|uri| entry(uri, 7, "", before));
        assert_eq!(log.verdict(&named), Verdict::Purged);
        for entry in of_path.iter().chain(&others) {
            assert_eq!(log.verdict(entry), Verdict::Valid, "{:?}", entry.uri());
        }
        log.follow_policy(Arc::new(Adds(200)), || {});
        for entry in &of_path {
            assert_eq!(log.verdict(entry), Verdict::Purged, "the next policy: {:?}", entry.uri());
        }
        for entry in &others {
            assert_eq!(log.verdict(entry), Verdict::Valid, "the next policy: {:?}", entry.uri());
        }
        let younger = entry("http://h200/a", 6, "", log.applied());
        assert_eq!(log.verdict(&younger), Verdict::Valid);
    }

    #[tokio::test]
    async fn a_uri_that_was_cut_under_other_rules_counts_by_its_path_at_once() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let older = url(&format!("http://h/a?{}…", "x".repeat(501)), 5);
        let newer = Matcher::url(format!("http://h/b?{}", "x".repeat(3000)), vec![5], 1);
        for (matcher, path) in [(older, "a"), (newer, "b")] {
            let hit = entry(&format!("http://h100/{path}?z"), 6, "", log.applied());
            let other = entry(&format!("http://h100/{path}b"), 7, "", log.applied());
            log.mirror().hold(&matcher, crate::holds::Ends::Released(1));
            assert_eq!([&hit, &other].map(|e| log.verdict(e)), [Verdict::Purged, Verdict::Valid]);
            log.mirror().release(1);
            assert_eq!(log.verdict(&hit), Verdict::Valid);
            log.purge(request(matcher, PurgeMode::Hard)).await;
            assert_eq!([&hit, &other].map(|e| log.verdict(e)), [Verdict::Purged, Verdict::Valid]);
        }
    }

    #[tokio::test]
    async fn no_uri_of_a_client_purges_everything_at_the_next_policy() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let other = entry("http://h200/other", 1, "", log.applied());
        for uri in ["http://h/…".to_owned(), format!("http://h/{}…", "x".repeat(503))] {
            log.purge(request(Matcher::url(uri, vec![5], 100), PurgeMode::Hard)).await;
        }
        for n in 0..300 {
            let long = format!("http://h/{n}?{}", "x".repeat(3000));
            log.purge(request(Matcher::url(long, vec![5], 100), PurgeMode::Hard)).await;
        }
        log.follow_policy(Arc::new(Adds(200)), || {});
        assert_eq!((log.verdict(&other), log.mirror().collapses()), (Verdict::Valid, 0));
    }

    #[tokio::test]
    async fn a_prefix_counts_under_every_policy_and_as_it_is_written() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let before = log.applied();
        let entries =
            [("http://h/a", 1), ("http://h100/a", 2), ("http://h200/a", 3), ("http://h200/b", 4)]
                .map(|(uri, digest)| entry(uri, digest, "", before));
        let verdicts = || [0, 1, 2, 3].map(|at| log.verdict(&entries[at]) == Verdict::Purged);
        let prefix = Matcher::Prefix("http://h/a".to_owned());
        let ends = crate::holds::Ends::Released(1);
        log.mirror().hold(&prefix, ends);
        assert_eq!(verdicts(), [true, true, false, false], "held");
        log.mirror().release(1);
        assert_eq!(verdicts(), [false; 4]);
        log.purge(request(prefix.clone(), PurgeMode::Hard)).await;
        assert_eq!(verdicts(), [true, true, false, false]);
        log.mirror().hold(&Matcher::Prefix("http://h/b".to_owned()), ends);
        log.follow_policy(Arc::new(Adds(200)), || {});
        assert_eq!(verdicts(), [true; 4]);
        log.mirror().release(1);
        assert_eq!(verdicts(), [true, true, true, false]);
    }

    #[tokio::test]
    async fn a_hold_counts_under_the_next_policy() {
        let log = PurgeLog::local();
        log.follow_policy(Arc::new(Adds(100)), || {});
        let mirror = log.mirror();
        mirror.hold(&url("http://h/x", 5), crate::holds::Ends::Released(1));
        let held = |digest| mirror.is_held(b"http://h/x", digest, Some(&[]));
        assert_eq!([5, 110, 210].map(held), [true, true, false]);
        log.follow_policy(Arc::new(Adds(200)), || {});
        assert_eq!([5, 110, 210].map(held), [true, true, true]);
        mirror.release(1);
        assert_eq!([5, 110, 210].map(held), [false, false, false]);
    }

    proptest::proptest! {
        /// However policies and purges follow each other: what is stored under the last policy is
        /// judged as if that had been in force all the time.
        #[test]
        fn the_policy_in_force_judges_what_was_purged_under_any_other(
            steps in proptest::collection::vec((0u8..4, 0usize..4, proptest::bool::ANY), 0..16),
            born in 0u64..12,
        ) {
            let mirror = Mirror::default();
            let (mut policy, mut seq) = (100, 0);
            mirror.follow(Arc::new(Adds(policy)), || {});
            let (mut hard, mut soft) = ([0; 4], [0; 4]);
            for (kind, which, is_hard) in steps {
                if kind == 0 {
                    policy = 100 * (which as u128 + 1);
                    mirror.follow(Arc::new(Adds(policy)), || {});
                } else {
                    seq += 1;
                    let mode = if is_hard { PurgeMode::Hard } else { PurgeMode::Soft };
                    let matcher = url(&"x".repeat(which + 1), 50 + which as u128);
                    mirror.apply(seq, &Content::purge(request(matcher, mode), None, ""), 0);
                    if is_hard { hard[which] = seq } else { soft[which] = seq }
                }
                for which in 0..4 {
                    for digest in [policy + which as u128 + 1, 50 + which as u128] {
                        let expected = if hard[which] > born {
                            Verdict::Purged
                        } else if soft[which] > born {
                            Verdict::Soft
                        } else {
                            Verdict::Valid
                        };
                        proptest::prop_assert_eq!(mirror.verdict(&entry("", digest, "", born)), expected);
                    }
                }
            }
        }

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
                    0 => url("http://h/", u128::from(*which)),
                    1 => Matcher::Tag(which.to_string()),
                    _ => Matcher::Prefix(format!("http://h/{which}")),
                };
                let mode = if *is_hard { PurgeMode::Hard } else { PurgeMode::Soft };
                let content = Content::purge(request(matcher, mode), None, "");
                mirror.apply(seq, &content, 0);
                if *which == 1 && seq > born {
                    hard |= *is_hard;
                    soft |= !*is_hard;
                }
                let expected = if hard { Verdict::Purged } else if soft { Verdict::Soft } else { Verdict::Valid };
                proptest::prop_assert_eq!(mirror.verdict(&subject), expected);
            }
        }
    }
}
