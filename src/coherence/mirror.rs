//! The mirror: for each matcher the latest position that named it, in memory.
//!
//! Each hit asks it once, and mostly the answer is one comparison: an entry remembers up to which
//! change of the mirror it was found valid. The mirror is bounded; when it has seen too many matchers
//! it forgets the older half and counts everything born before them as purged, which is always safe.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use outrigger_store::Entry;
use parking_lot::RwLock;

use crate::Seq;
use crate::canonical::{Canonicaliser, Meaning, SentUris, path_of};
use crate::event::{Action, Content, Matcher, PurgeMode};
use crate::holds::{Ends, Holds};
use crate::marks::Marks;

/// With more matchers than this the older half is shed.
pub const MATCHERS_MAX: usize = 65_536;
/// A hold whose pod does not end it ends by itself after this, milliseconds.
pub const HOLD_MS_MAX: u64 = 120_000;
/// Prefixes are compared one by one; with more than this the older half is shed. Operators alone
/// purge by prefix.
pub const PREFIXES_MAX: usize = 256;
/// Canonical forms that these may have altogether.
const PREFIX_FORMS_MAX: usize = 4 * PREFIXES_MAX;

/// What the log says about a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No event concerns it.
    Valid,
    /// A soft purge made it stale.
    Soft,
    /// A hard purge: it must not be served.
    Purged,
}

/// A prefix by which was purged.
#[derive(Debug)]
struct Prefix {
    matcher: Matcher,
    meaning: Meaning,
    marks: Marks,
}

impl Prefix {
    fn covers(&self, uri: &[u8]) -> bool {
        self.meaning.prefixes.iter().any(|form| uri.starts_with(form.as_bytes()))
    }
}

#[derive(Debug, Default)]
struct Tables {
    urls: HashMap<u128, Marks>,
    tags: HashMap<Box<str>, Marks>,
    /// Hosts and paths of URIs that were cut.
    paths: HashMap<Box<[u8]>, Marks>,
    prefixes: Vec<Prefix>,
    all: Marks,
    /// The latest event for any tag.
    latest_tag: Seq,
    holds: Holds,
    /// What the events of a URL named, for the next policy.
    sent: SentUris,
    /// The policy in force; two while one follows the other.
    policies: Vec<Arc<dyn Canonicaliser>>,
}

impl Tables {
    fn len(&self) -> usize {
        self.urls.len() + self.tags.len() + self.paths.len()
    }

    /// Forgets the older half of the matchers, and counts everything born before them as purged.
    fn shed(&mut self) {
        let mut positions: Vec<Seq> = self
            .urls
            .values()
            .chain(self.tags.values())
            .chain(self.paths.values())
            .chain(self.prefixes.iter().map(|prefix| &prefix.marks))
            .map(Marks::latest)
            .collect();
        let middle = positions.len() / 2;
        let (_, until, _) = positions.select_nth_unstable(middle);
        let until = *until;
        self.urls.retain(|_, marks| marks.latest() > until);
        self.tags.retain(|_, marks| marks.latest() > until);
        self.paths.retain(|_, marks| marks.latest() > until);
        self.prefixes.retain(|prefix| prefix.marks.latest() > until);
        self.sent.purged(until);
        self.all.set(PurgeMode::Hard, until);
    }

    fn purge_all(&mut self, mode: PurgeMode, seq: Seq) {
        self.all.set(mode, seq);
        if mode == PurgeMode::Hard {
            self.sent.purged(seq);
        }
    }

    fn marks_for(&self, entry: &Entry) -> Marks {
        let mut marks = self.marks_for_uri(entry.uri(), entry.uri_digest);
        if !self.tags.is_empty() {
            for tag in &entry.tags {
                if let Some(found) = self.tags.get(tag) {
                    marks.join(found);
                }
            }
        }
        marks
    }

    fn marks_for_uri(&self, uri: &[u8], uri_digest: u128) -> Marks {
        let mut marks = self.all;
        if let Some(found) = self.urls.get(&uri_digest) {
            marks.join(found);
        }
        if !self.paths.is_empty()
            && let Some(found) = self.paths.get(path_of(uri))
        {
            marks.join(found);
        }
        for prefix in &self.prefixes {
            if prefix.covers(uri) {
                marks.join(&prefix.marks);
            }
        }
        marks
    }
}

/// What the log has said, as far as this process has applied it.
#[derive(Debug, Default)]
pub struct Mirror {
    applied: AtomicU64,
    collapses: AtomicU64,
    /// How often something has changed that a check of an entry depends on.
    changes: AtomicU64,
    /// Number of holds, so that a hit need not look where there are none.
    held: AtomicUsize,
    tables: RwLock<Tables>,
}

impl Mirror {
    /// A mirror of a log that begins at a position.
    pub fn starting_at(seq: Seq) -> Self {
        Mirror { applied: AtomicU64::new(seq), changes: AtomicU64::new(1), ..Mirror::default() }
    }

    /// The position applied last. A fetch reads it before it begins.
    pub fn applied(&self) -> Seq {
        self.applied.load(Ordering::Acquire)
    }

    /// How often the mirror has outgrown its bound.
    pub fn collapses(&self) -> u64 {
        self.collapses.load(Ordering::Relaxed)
    }

    /// Number of matchers remembered.
    pub fn matchers(&self) -> usize {
        let tables = self.tables.read();
        tables.len() + tables.prefixes.len()
    }

    /// Number of holds in this pod.
    pub fn holds(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Applies an event. Events must come in the order of their positions: what has been checked
    /// up to a position is not checked against earlier ones again. `now` is in milliseconds of the
    /// process's clock, for the end of a hold.
    pub fn apply(&self, seq: Seq, content: &Content, now: u64) {
        let mut tables = self.tables.write();
        tables.holds.end(|have| matches!(have, Ends::Applied(at) if at <= seq));
        let matcher = &content.matcher;
        let meaning = Meaning::of(matcher, &tables.policies);
        let mode = match content.action {
            Action::Purge { mode, ends } => {
                tables.holds.end(|have| matches!(have, Ends::Event(at, _) if Some(at) == ends));
                mode
            }
            Action::Hold => {
                let ends = Ends::Event(seq, now.saturating_add(HOLD_MS_MAX));
                tables.holds.place(matcher.clone(), meaning.clone(), ends);
                PurgeMode::Hard
            }
            Action::Reset => PurgeMode::Hard,
        };
        self.held.store(tables.holds.len(), Ordering::Release);
        match matcher {
            Matcher::Url { uri, rules, .. } => {
                for digest in &meaning.digests {
                    tables.urls.entry(*digest).or_default().set(mode, seq);
                }
                for path in meaning.paths {
                    tables.paths.entry(path).or_default().set(mode, seq);
                }
                tables.sent.note(uri, *rules, mode, seq);
            }
            Matcher::Tag(tag) => {
                tables.tags.entry(tag.as_str().into()).or_default().set(mode, seq);
                tables.latest_tag = tables.latest_tag.max(seq);
            }
            Matcher::Prefix(_) => {
                match tables.prefixes.iter_mut().find(|have| have.matcher == *matcher) {
                    Some(have) => have.marks.set(mode, seq),
                    None => {
                        let mut marks = Marks::default();
                        marks.set(mode, seq);
                        let matcher = matcher.clone();
                        tables.prefixes.push(Prefix { matcher, meaning, marks });
                    }
                }
            }
            Matcher::All => tables.purge_all(mode, seq),
        }
        self.shed_if_full(&mut tables);
        // Published while the tables are still locked: who reads this position finds the marks.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.applied.fetch_max(seq, Ordering::AcqRel);
    }

    /// Makes a policy count from now on, for what was applied before as well. `put_in_force` is
    /// called when it counts; until it returns, the policy before counts too, so that requests may
    /// be under either.
    pub fn follow(&self, policy: Arc<dyn Canonicaliser>, put_in_force: impl FnOnce()) {
        let sent = {
            let mut tables = self.tables.write();
            if let Some(before) = tables.policies.last_mut()
                && before.rules() == policy.rules()
            {
                *before = policy;
                drop(tables);
                return put_in_force();
            }
            tables.holds.extend(&*policy);
            for prefix in &mut tables.prefixes {
                let _ = prefix.meaning.extend(&prefix.matcher, &*policy);
            }
            tables.policies.push(Arc::clone(&policy));
            tables.sent.copy()
        };
        // There may be many; requests that look into the tables do not wait for this.
        let (digests, paths) = (sent.digests(&*policy), sent.paths(&*policy));
        let mut tables = self.tables.write();
        for (digest, marks) in &digests {
            tables.urls.entry(*digest).or_default().join(marks);
        }
        for (path, marks) in paths {
            tables.paths.entry(path).or_default().join(&marks);
        }
        let forgotten = tables.sent.forgotten();
        tables.all.set(PurgeMode::Hard, forgotten);
        tables.sent.purged(forgotten);
        self.shed_if_full(&mut tables);
        // What was checked before must be checked again.
        self.changes.fetch_add(1, Ordering::AcqRel);
        drop(tables);
        put_in_force();
        let mut tables = self.tables.write();
        let before = tables.policies.len().saturating_sub(1);
        tables.policies.drain(..before);
    }

    fn shed_if_full(&self, tables: &mut Tables) {
        let forms: usize = tables.prefixes.iter().map(|have| have.meaning.prefixes.len()).sum();
        if tables.len() > MATCHERS_MAX
            || tables.prefixes.len() > PREFIXES_MAX
            || forms > PREFIX_FORMS_MAX
        {
            tables.shed();
            self.collapses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts everything born before a position as purged.
    pub fn purge_before(&self, seq: Seq) {
        self.tables.write().purge_all(PurgeMode::Hard, seq);
        // Entries that were checked must be checked again. The next event, which the caller applies
        // right afterwards, brings that about.
    }

    /// Places a hold that does not come from the log.
    pub fn hold(&self, matcher: &Matcher, ends: Ends) {
        let mut tables = self.tables.write();
        if matches!(ends, Ends::Applied(seq) if seq <= self.applied()) {
            return;
        }
        let meaning = Meaning::of(matcher, &tables.policies);
        tables.holds.place(matcher.clone(), meaning, ends);
        self.held.store(tables.holds.len(), Ordering::Release);
    }

    /// Ends a hold that does not come from the log.
    pub fn release(&self, id: u64) {
        let mut tables = self.tables.write();
        tables.holds.end(|ends| ends == Ends::Released(id));
        self.held.store(tables.holds.len(), Ordering::Release);
    }

    /// Ends the holds of the log whose time has passed.
    pub fn expire_holds(&self, now: u64) {
        if self.holds() == 0 {
            return;
        }
        let mut tables = self.tables.write();
        tables.holds.end(|ends| matches!(ends, Ends::Event(_, until) if until <= now));
        self.held.store(tables.holds.len(), Ordering::Release);
    }

    /// Whether a response of this URL may neither be served nor stored now. While its tags are not
    /// known, any tag may be one of them.
    pub fn is_held(&self, uri: &[u8], uri_digest: u128, tags: Option<&[Box<str>]>) -> bool {
        self.holds() > 0 && self.tables.read().holds.covers(uri, uri_digest, tags)
    }

    /// Whether an event after `born_seq` may concern what a fetch for this URI brings. While its
    /// head is not there, `tags` is `None`, and any tag may be one of them.
    pub fn may_concern(
        &self,
        uri: &[u8],
        uri_digest: u128,
        tags: Option<&[Box<str>]>,
        born_seq: Seq,
    ) -> bool {
        let tables = self.tables.read();
        if tables.holds.covers(uri, uri_digest, tags) {
            return true;
        }
        let mut marks = tables.marks_for_uri(uri, uri_digest);
        match tags {
            None => marks.join(&Marks { hard: tables.latest_tag, soft: 0 }),
            Some(tags) => {
                for found in tags.iter().filter_map(|tag| tables.tags.get(tag)) {
                    marks.join(found);
                }
            }
        }
        marks.hard > born_seq || marks.soft > born_seq
    }

    /// What the log says about an entry now.
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        let applied = self.applied();
        if self.holds() > 0 && self.is_held(entry.uri(), entry.uri_digest, Some(&entry.tags)) {
            return Verdict::Purged;
        }
        if entry.born_seq >= applied {
            return Verdict::Valid;
        }
        let changes = self.changes.load(Ordering::Acquire);
        let (checked, soft) = entry.checked();
        if checked == changes && checked > 0 {
            return if soft { Verdict::Soft } else { Verdict::Valid };
        }
        let tables = self.tables.read();
        let marks = tables.marks_for(entry);
        drop(tables);
        if marks.hard > entry.born_seq {
            return Verdict::Purged;
        }
        let soft = marks.soft > entry.born_seq;
        // `changes` was read before the tables, so that this never claims too much.
        entry.set_checked(changes, soft);
        if soft { Verdict::Soft } else { Verdict::Valid }
    }
}
