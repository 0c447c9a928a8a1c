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

/// The holds of one pod.
#[derive(Debug, Default)]
pub struct Holds {
    /// Holds of a URL, by its digest. Most are such.
    urls: HashMap<u128, Vec<Ends>>,
    url_count: usize,
    list: Vec<Hold>,
    /// Holds beyond the bound: as long as there are any, every response is held.
    spilled: Vec<Ends>,
}

impl Holds {
    /// Places a hold until what `ends` says.
    pub fn place(&mut self, matcher: Matcher, uri_digest: u128, ends: Ends) {
        if self.url_count + self.list.len() >= HOLDS_MAX {
            self.spilled.push(ends);
        } else if let Matcher::Url(_) = matcher {
            self.urls.entry(uri_digest).or_default().push(ends);
            self.url_count += 1;
        } else {
            self.list.push(Hold { matcher, ends });
        }
    }

    /// Number of holds that are placed.
    pub fn len(&self) -> usize {
        self.url_count + self.list.len() + self.spilled.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the holds for which `is_over` is true.
    pub fn end(&mut self, is_over: impl Fn(Ends) -> bool) {
        self.list.retain(|hold| !is_over(hold.ends));
        self.urls.retain(|_, holds| {
            holds.retain(|ends| !is_over(*ends));
            !holds.is_empty()
        });
        self.url_count = self.urls.values().map(Vec::len).sum();
        self.spilled.retain(|ends| !is_over(*ends));
    }

    /// Whether a response is held. While its tags are not known, any tag may be one of them.
    pub fn covers(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        !self.spilled.is_empty()
            || self.urls.contains_key(&uri_digest)
            || self.list.iter().any(|hold| match &hold.matcher {
                Matcher::Url(_) => false,
                Matcher::Tag(tag) => {
                    tags.is_none_or(|tags| tags.iter().any(|have| **have == **tag))
                }
                Matcher::Prefix(prefix) => uri.starts_with(prefix.as_bytes()),
                Matcher::All => true,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_holds_hold_everything() {
        let mut holds = Holds::default();
        for n in 0..=HOLDS_MAX as u64 {
            holds.place(Matcher::Url(String::new()), u128::from(n), Ends::Released(n));
        }
        assert!(holds.covers(b"http://other/", u128::MAX, Some(&[])));
        holds.end(|ends| ends == Ends::Released(HOLDS_MAX as u64));
        assert!(!holds.covers(b"http://other/", u128::MAX, Some(&[])));
        assert!(holds.covers(b"http://other/", 5, Some(&[])));
        assert_eq!(holds.len(), HOLDS_MAX);
    }
}
