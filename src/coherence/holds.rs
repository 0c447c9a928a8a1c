//! Holds: which responses may neither be served nor stored for the time being, because a write is on
//! its way to the upstream, or because a purge could not be appended to the log yet.

use std::collections::HashMap;
use std::hash::Hash;

use crate::Seq;
use crate::canonical::{Canonicaliser, Meaning, path_of};
use crate::event::Matcher;

/// Number of holds from which on every response is held.
pub const HOLDS_MAX: usize = 4096;

/// What ends a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The purge that names this position, or the passing of time (milliseconds of the process's
    /// clock): its pod may have died.
    Event(Seq, u64),
    /// Applying the event at this position.
    Applied(Seq),
    /// A call of [`Mirror::release`](crate::Mirror::release) with this number.
    Released(u64),
}

#[derive(Debug)]
struct Hold {
    matcher: Matcher,
    meaning: Meaning,
    ends: Ends,
}

impl Hold {
    /// Whether a response is held. URLs are not looked at here.
    fn covers(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        self.matcher.concerns(uri, uri_digest, tags)
            || self.meaning.prefixes.iter().any(|form| uri.starts_with(form.as_bytes()))
    }
}

/// The holds of one pod.
#[derive(Debug, Default)]
pub struct Holds {
    /// Holds of a URL. Most are such.
    urls: Vec<Hold>,
    /// Number of holds of a canonical URI, by its digest.
    held: HashMap<u128, usize>,
    /// Number of holds of a host and path, for URIs that were cut.
    held_paths: HashMap<Box<[u8]>, usize>,
    /// Holds of anything else.
    list: Vec<Hold>,
    /// Holds beyond the bound: as long as there are any, every response is held.
    spilled: Vec<Ends>,
}

impl Holds {
    /// Places a hold until what `ends` says.
    pub(crate) fn place(&mut self, matcher: Matcher, meaning: Meaning, ends: Ends) {
        if self.urls.len() + self.list.len() >= HOLDS_MAX {
            return self.spilled.push(ends);
        }
        let is_url = matches!(matcher, Matcher::Url { .. });
        let hold = Hold { matcher, meaning, ends };
        if is_url {
            count(&mut self.held, &mut self.held_paths, &hold.meaning);
            self.urls.push(hold);
        } else {
            self.list.push(hold);
        }
    }

    /// Extends the holds to what they mean under a further policy.
    pub(crate) fn extend(&mut self, policy: &dyn Canonicaliser) {
        for hold in &mut self.urls {
            let new = hold.meaning.extend(&hold.matcher, policy);
            count(&mut self.held, &mut self.held_paths, &new);
        }
        for hold in &mut self.list {
            let _ = hold.meaning.extend(&hold.matcher, policy);
        }
    }

    /// Number of holds that are placed.
    pub fn len(&self) -> usize {
        self.urls.len() + self.list.len() + self.spilled.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the holds for which `is_over` is true.
    pub fn end(&mut self, is_over: impl Fn(Ends) -> bool) {
        self.list.retain(|hold| !is_over(hold.ends));
        self.urls.retain(|hold| {
            let over = is_over(hold.ends);
            if over {
                hold.meaning.digests.iter().for_each(|digest| discount(&mut self.held, digest));
                hold.meaning.paths.iter().for_each(|path| discount(&mut self.held_paths, path));
            }
            !over
        });
        self.spilled.retain(|ends| !is_over(*ends));
    }

    /// Whether a response is held. While its tags are not known, any tag may be one of them.
    pub fn covers(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        !self.spilled.is_empty()
            || self.held.contains_key(&uri_digest)
            || (!self.held_paths.is_empty() && self.held_paths.contains_key(path_of(uri)))
            || self.list.iter().any(|hold| hold.covers(uri, uri_digest, tags))
    }
}

/// Counts the URIs that a hold means.
fn count(
    held: &mut HashMap<u128, usize>,
    held_paths: &mut HashMap<Box<[u8]>, usize>,
    meaning: &Meaning,
) {
    meaning.digests.iter().for_each(|digest| *held.entry(*digest).or_default() += 1);
    meaning.paths.iter().for_each(|path| *held_paths.entry(path.clone()).or_default() += 1);
}

/// Counts one hold less.
fn discount<K: Hash + Eq>(held: &mut HashMap<K, usize>, key: &K) {
    if let Some(left) = held.get_mut(key) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(holds: &mut Holds, digests: Vec<u128>, ends: Ends) {
        let matcher = Matcher::Url { uri: "http://h/".to_owned(), digests, rules: None };
        let meaning = Meaning::of(&matcher, &[]);
        holds.place(matcher, meaning, ends);
    }

    /// A policy that gives every URI two canonical ones.
    #[derive(Debug)]
    struct Gives([u128; 2]);

    impl Canonicaliser for Gives {
        fn digests(&self, _uri: &str) -> Vec<u128> {
            self.0.to_vec()
        }

        fn prefixes(&self, _text: &str) -> Vec<String> {
            Vec::new()
        }

        fn rules(&self) -> u128 {
            0
        }
    }

    #[test]
    fn a_hold_ends_for_each_of_its_uris() {
        let mut holds = Holds::default();
        place(&mut holds, vec![1, 2], Ends::Released(1));
        place(&mut holds, vec![2], Ends::Released(2));
        holds.extend(&Gives([2, 9]));
        let held = |holds: &Holds| [1, 2, 9].map(|uri| holds.covers(b"http://h/", uri, Some(&[])));
        assert_eq!((held(&holds), holds.len()), ([true, true, true], 2));
        holds.end(|ends| ends == Ends::Released(1));
        assert_eq!((held(&holds), holds.len()), ([false, true, true], 1));
        holds.end(|ends| ends == Ends::Released(2));
        assert_eq!((held(&holds), holds.is_empty()), ([false, false, false], true));
    }

    #[test]
    fn too_many_holds_hold_everything() {
        let mut holds = Holds::default();
        for n in 0..=HOLDS_MAX as u64 {
            place(&mut holds, vec![u128::from(n)], Ends::Released(n));
        }
        assert!(holds.covers(b"http://other/", u128::MAX, Some(&[])));
        holds.end(|ends| ends == Ends::Released(HOLDS_MAX as u64));
        assert!(!holds.covers(b"http://other/", u128::MAX, Some(&[])));
        assert!(holds.covers(b"http://other/", 5, Some(&[])));
        assert_eq!(holds.len(), HOLDS_MAX);
    }
}
