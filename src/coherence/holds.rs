//! Holds: which responses may neither be served nor stored for the time being, because a write is on
//! its way to the upstream, or because a purge could not be appended to the log yet.

use std::collections::HashMap;

use crate::Seq;
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
    ends: Ends,
}

/// A hold of a URL, which most are.
#[derive(Debug)]
struct UrlHold {
    uri: String,
    digests: Vec<u128>,
    ends: Ends,
}

/// The holds of one pod.
#[derive(Debug, Default)]
pub struct Holds {
    /// Holds of a URL. Most are such.
    urls: Vec<UrlHold>,
    /// Number of holds of a canonical URI, by its digest.
    held: HashMap<u128, usize>,
    /// Holds of anything else.
    list: Vec<Hold>,
    /// Holds beyond the bound: as long as there are any, every response is held.
    spilled: Vec<Ends>,
}

impl Holds {
    /// Places a hold until what `ends` says.
    pub fn place(&mut self, matcher: Matcher, ends: Ends) {
        if self.urls.len() + self.list.len() >= HOLDS_MAX {
            return self.spilled.push(ends);
        }
        match matcher {
            Matcher::Url { uri, digests } => {
                digests.iter().for_each(|digest| *self.held.entry(*digest).or_default() += 1);
                self.urls.push(UrlHold { uri, digests, ends });
            }
            matcher => self.list.push(Hold { matcher, ends }),
        }
    }

    /// Extends the holds of URLs to the canonical URIs that these have under a further policy.
    pub fn extend(&mut self, digests_of: impl Fn(&str) -> Vec<u128>) {
        for hold in &mut self.urls {
            for digest in digests_of(&hold.uri) {
                if !hold.digests.contains(&digest) {
                    hold.digests.push(digest);
                    *self.held.entry(digest).or_default() += 1;
                }
            }
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
        let held = &mut self.held;
        self.urls.retain(|hold| {
            let over = is_over(hold.ends);
            for digest in hold.digests.iter().filter(|_| over) {
                let left = held.get(digest).copied().unwrap_or_default().saturating_sub(1);
                if left > 0 {
                    held.insert(*digest, left);
                } else {
                    held.remove(digest);
                }
            }
            !over
        });
        self.spilled.retain(|ends| !is_over(*ends));
    }

    /// Whether a response is held. While its tags are not known, any tag may be one of them.
    pub fn covers(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        !self.spilled.is_empty()
            || self.held.contains_key(&uri_digest)
            || self.list.iter().any(|hold| hold.matcher.concerns(uri, uri_digest, tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(digests: Vec<u128>) -> Matcher {
        Matcher::Url { uri: "http://h/".to_owned(), digests }
    }

    #[test]
    fn a_hold_ends_for_each_of_its_uris() {
        let mut holds = Holds::default();
        holds.place(url(vec![1, 2]), Ends::Released(1));
        holds.place(url(vec![2]), Ends::Released(2));
        holds.extend(|uri| vec![2, u128::try_from(uri.len()).unwrap_or(0)]);
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
            holds.place(url(vec![u128::from(n)]), Ends::Released(n));
        }
        assert!(holds.covers(b"http://other/", u128::MAX, Some(&[])));
        holds.end(|ends| ends == Ends::Released(HOLDS_MAX as u64));
        assert!(!holds.covers(b"http://other/", u128::MAX, Some(&[])));
        assert!(holds.covers(b"http://other/", 5, Some(&[])));
        assert_eq!(holds.len(), HOLDS_MAX);
    }
}
