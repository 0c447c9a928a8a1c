//! The URIs that events name, under the policy of this pod.
//!
//! An event carries a URI as it was sent, and each pod finds out by its own policy under which
//! canonical URIs its stored responses may be: during a rollout pods have different policies. The
//! URIs are remembered, since the next policy may give others for the same event.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::Seq;
use crate::event::{Matcher, PurgeMode, TEXT_BYTES_MAX, is_cut};
use crate::marks::Marks;

/// A policy, as far as it decides under which canonical URIs a response is stored.
pub trait Canonicaliser: Debug + Send + Sync {
    /// The digest of every canonical URI that a stored response for this URI can have; none if it
    /// cannot be read.
    fn digests(&self, uri: &str) -> Vec<u128>;

    /// With what the canonical URIs of all URIs begin that begin with a text; nothing if it cannot
    /// be read. They may cover more, never less.
    fn prefixes(&self, text: &str) -> Vec<String>;

    /// A hash of what decides about them: equal hashes give equal answers for every URI.
    fn rules(&self) -> u128;
}

/// Paths are compared by so many bytes. The shortest text that was cut has them, unless its path is
/// complete.
const PATH_BYTES: usize = 200;

/// Host and path of a canonical URI: what is purged by a URI that was cut, under other rules than
/// its writer's. Then its digest is not known, and neither is what the rules make of its query.
pub(crate) fn path_of(uri: &[u8]) -> &[u8] {
    let find = |from: usize, stop: &[u8]| {
        let rest = uri.get(from..).unwrap_or_default();
        rest.iter().position(|b| stop.contains(b)).map_or(uri.len(), |at| from + at)
    };
    let authority = uri.windows(3).position(|at| at == b"://").map_or(0, |at| at + 3);
    let path = find(authority, b"/?");
    &uri[..find(path, b"?").min(path + PATH_BYTES)]
}

/// What is known of the host and path of a URI that was cut.
fn cut_path(uri: &str) -> &str {
    let whole = uri.strip_suffix('…').unwrap_or(uri);
    let end = path_of(whole.as_bytes()).len();
    let end = (end..=whole.len()).find(|at| whole.is_char_boundary(*at)).unwrap_or(end);
    whole.get(..end).unwrap_or(whole)
}

/// The paths that a cut URI has under a policy: none where the digests of the writer say it all.
fn cut_paths(policy: &dyn Canonicaliser, path: &str, rules: Option<u128>) -> Vec<Box<[u8]>> {
    if rules == Some(policy.rules()) {
        return Vec::new();
    }
    policy.prefixes(path).iter().map(|prefix| path_of(prefix.as_bytes()).into()).collect()
}

/// What a matcher stands for in a pod, under the policies in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meaning {
    /// Digests of canonical URIs.
    pub(crate) digests: Vec<u128>,
    /// Hosts with paths, as [`path_of`] finds them.
    pub(crate) paths: Vec<Box<[u8]>>,
    /// With what canonical URIs begin.
    pub(crate) prefixes: Vec<Box<str>>,
}

impl Meaning {
    /// The meaning of a matcher: what it says itself, and what policies make of that.
    pub(crate) fn of(matcher: &Matcher, policies: &[Arc<dyn Canonicaliser>]) -> Self {
        let mut meaning = Meaning::default();
        match matcher {
            Matcher::Url { digests, .. } => meaning.digests.clone_from(digests),
            Matcher::Prefix(text) => meaning.prefixes.push(text.as_str().into()),
            Matcher::Tag(_) | Matcher::All => {}
        }
        for policy in policies {
            let _ = meaning.extend(matcher, &**policy);
        }
        meaning
    }

    /// Adds what a further policy makes of the matcher; returns what is new.
    pub(crate) fn extend(&mut self, matcher: &Matcher, policy: &dyn Canonicaliser) -> Meaning {
        let mut new = Meaning::default();
        match matcher {
            Matcher::Url { uri, rules, .. } if is_cut(uri) => {
                new.paths = add(&mut self.paths, cut_paths(policy, cut_path(uri), *rules));
            }
            Matcher::Url { uri, .. } => new.digests = add(&mut self.digests, policy.digests(uri)),
            Matcher::Prefix(text) => {
                let found = policy.prefixes(text).into_iter().map(Box::from).collect();
                new.prefixes = add(&mut self.prefixes, found);
            }
            Matcher::Tag(_) | Matcher::All => {}
        }
        new
    }
}

/// Adds what is not there yet; returns it.
fn add<T: PartialEq + Clone>(list: &mut Vec<T>, found: Vec<T>) -> Vec<T> {
    let mut new = Vec::new();
    for one in found {
        if !list.contains(&one) {
            list.push(one.clone());
            new.push(one);
        }
    }
    new
}

/// URIs are remembered up to so many bytes. Of more, the older half is forgotten: the next policy
/// with other rules then purges what is older than that.
const SENT_BYTES_MAX: usize = 8 << 20;
/// What one costs besides its text, roughly.
const SENT_BYTES_EACH: usize = 64;

/// What is remembered of a URI.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    marks: Marks,
    /// The rules under which the digests of its events were found, if they were all found under the
    /// same ones.
    rules: Option<u128>,
}

/// The URIs of events that were applied, as they were sent.
#[derive(Debug, Default)]
pub(crate) struct SentUris {
    whole: HashMap<Box<str>, Sent>,
    /// Host and path of those that were cut.
    cut: HashMap<Box<str>, Sent>,
    bytes: usize,
    /// Up to this position there were URIs that are not here.
    forgotten: Seq,
}

impl SentUris {
    /// Notes that an event has named a URI, with the rules that it carries.
    pub(crate) fn note(&mut self, uri: &str, rules: Option<u128>, mode: PurgeMode, seq: Seq) {
        // Nobody writes such events.
        if uri.len() > TEXT_BYTES_MAX || uri.is_empty() {
            self.forgotten = self.forgotten.max(seq);
            return;
        }
        let (map, text) = match is_cut(uri) {
            true => (&mut self.cut, cut_path(uri)),
            false => (&mut self.whole, uri),
        };
        if let Some(sent) = map.get_mut(text) {
            sent.rules = sent.rules.filter(|have| Some(*have) == rules);
            return sent.marks.set(mode, seq);
        }
        let mut sent = Sent { marks: Marks::default(), rules };
        sent.marks.set(mode, seq);
        self.bytes += text.len() + SENT_BYTES_EACH;
        map.insert(text.into(), sent);
        if self.bytes > SENT_BYTES_MAX {
            self.shed();
        }
    }

    fn shed(&mut self) {
        let all = self.whole.values().chain(self.cut.values());
        let mut positions: Vec<Seq> = all.map(|sent| sent.marks.latest()).collect();
        let middle = positions.len() / 2;
        let (_, until, _) = positions.select_nth_unstable(middle);
        self.forget(*until);
    }

    /// Forgets what was named up to a position.
    fn forget(&mut self, until: Seq) {
        self.bytes = 0;
        for map in [&mut self.whole, &mut self.cut] {
            map.retain(|_, sent| sent.marks.latest() > until);
            self.bytes += map.keys().map(|text| text.len() + SENT_BYTES_EACH).sum::<usize>();
        }
        self.forgotten = self.forgotten.max(until);
    }

    /// Forgets what was named up to a position, since everything from before it is purged.
    pub(crate) fn purged(&mut self, until: Seq) {
        let forgotten = self.forgotten;
        self.forget(until);
        self.forgotten = if forgotten > until { forgotten } else { 0 };
    }

    /// A copy of what is remembered, to be read without a lock.
    pub(crate) fn copy(&self) -> SentCopy {
        let list = |map: &HashMap<Box<str>, Sent>| {
            map.iter().map(|(text, sent)| (text.clone(), *sent)).collect()
        };
        SentCopy { whole: list(&self.whole), cut: list(&self.cut) }
    }

    /// Up to this position not every URI is known; zero if all are.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }
}

/// What is remembered of the URIs of events.
#[derive(Debug)]
pub(crate) struct SentCopy {
    whole: Vec<(Box<str>, Sent)>,
    cut: Vec<(Box<str>, Sent)>,
}

impl SentCopy {
    /// The digests that the URIs have under a policy.
    pub(crate) fn digests(&self, policy: &dyn Canonicaliser) -> Vec<(u128, Marks)> {
        let of_uri = |(uri, sent): &(Box<str>, Sent)| {
            let marks = sent.marks;
            policy.digests(uri).into_iter().map(move |digest| (digest, marks))
        };
        self.whole.iter().flat_map(of_uri).collect()
    }

    /// The paths that the cut ones have under it.
    pub(crate) fn paths(&self, policy: &dyn Canonicaliser) -> Vec<(Box<[u8]>, Marks)> {
        let of_path = |(path, sent): &(Box<str>, Sent)| {
            let marks = sent.marks;
            cut_paths(policy, path, sent.rules).into_iter().map(move |path| (path, marks))
        };
        self.cut.iter().flat_map(of_path).collect()
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
            sent.note(&format!("http://h/{long}{n}"), None, PurgeMode::Hard, n);
        }
        let forgotten = sent.forgotten();
        assert!(forgotten > count / 3 && forgotten < count, "{forgotten} of {count}");
        assert_eq!(sent.copy().whole.len() as u64, count - forgotten);
        assert!(sent.bytes <= SENT_BYTES_MAX);
    }

    #[test]
    fn what_was_cut_is_remembered_by_its_path() {
        let mut sent = SentUris::default();
        sent.note("http://h/a", None, PurgeMode::Soft, 1);
        sent.note("http://h/short…", None, PurgeMode::Hard, 2);
        assert_eq!((sent.whole.len(), sent.cut.len()), (2, 0));
        for (seq, fill) in [(3, "x"), (4, "y")] {
            let uri = format!("http://h/a?{}…", fill.repeat(TEXT_BYTES_MAX - 14));
            sent.note(&uri, Some(7), PurgeMode::Hard, seq);
        }
        assert_eq!((sent.forgotten(), sent.whole.len(), sent.cut.len()), (0, 2, 1));
        assert_eq!(sent.cut["http://h/a"].rules, Some(7));
        let older = format!("http://h/a?{}…", "x".repeat(501));
        sent.note(&older, None, PurgeMode::Hard, 5);
        assert_eq!((sent.cut.len(), sent.cut["http://h/a"].rules), (1, None));
        sent.purged(5);
        assert_eq!((sent.forgotten(), sent.whole.len(), sent.cut.len(), sent.bytes), (0, 0, 0, 0));
        sent.note("", None, PurgeMode::Hard, 6);
        assert_eq!(sent.forgotten(), 6);
    }

    #[test]
    fn a_cut_path_is_found_in_the_whole_one() {
        let long = format!("http://h/{}", "ä".repeat(2000));
        for (whole, cut) in [
            ("http://h:80/a?b", "http://h:80/a?c…"),
            ("http://h/a", "http://h/a?…"),
            ("http://[::1]/", "http://[::1]/?/:…"),
            (long.as_str(), &format!("{}…", long.get(..2045).unwrap())),
        ] {
            assert_eq!(path_of(whole.as_bytes()), path_of(cut_path(cut).as_bytes()), "{whole}");
        }
        assert_ne!(path_of(b"http://h/ab"), path_of(b"http://h/a"));
        assert_eq!(path_of(b"http://h"), b"http://h");
    }
}
