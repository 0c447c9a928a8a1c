//! The readers of one fetch: how far each has read, and who holds the others back.
//!
//! While a response may still be stored nobody holds anybody back, since all bytes are kept. Once
//! it is too large, bytes are dropped when all have read them, and the window that is left fills
//! up behind the slowest. Where somebody waits for the bytes after it, the time counts against
//! those for whom the window is full, and who has cost the others too much of it is cut loose.

use std::task::Waker;
use std::time::{Duration, Instant};

/// Bytes that may wait for the only reader of a response that is too large to store.
pub(crate) const WINDOW_BYTES_MAX: usize = 256 * 1024;

/// Bytes that may wait for the slowest of several: more than what sockets take at a time, so that
/// readers of nearly the same speed seldom wait for each other.
pub(crate) const SHARED_WINDOW_BYTES_MAX: usize = 4 << 20;

/// How long a reader may hold others back. Time without that forgives as much. So do the bytes that it
/// takes meanwhile, by the time that they take at half the mean speed of the fetch: that somebody has
/// read everything does not show that its client lacks bytes, whose socket may be full of them, and
/// a reader that keeps up with the fetch as a whole is not slow.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(1);

/// Each reader that is cut loose halves the time for those who come after it, so often at most:
/// many slow readers, one after the other, must not add up.
const HALVINGS_MAX: u32 = 5;

/// How far one reader has read.
#[derive(Debug)]
struct ReaderState {
    next: usize,
    bytes: u64,
    waker: Option<Waker>,
    /// Whether it was woken and has not been asked since: it waits for its turn on its thread.
    woken: bool,
    held: Duration,
    /// Up to when its time was counted, and the bytes that it had taken by then.
    counted: Option<(Instant, u64)>,
}

/// What a fetch has handed on, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// When the first bytes came.
    pub began: Instant,
    /// When somebody began to wait for those who are behind.
    pub since: Instant,
    /// The present.
    pub now: Instant,
}

/// What a reader gets next.
pub(super) enum Next {
    /// The chunk with this number.
    Chunk(usize),
    /// The reader was cut loose.
    Cut,
}

/// Whether the producer may hand on more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It may, or nobody is left to wait for.
    Free,
    /// All are slow: the upstream waits with them.
    Full,
    /// Somebody has read everything and waits for those who have not.
    Held {
        /// Whether all of those only wait for their turn.
        in_turn: bool,
    },
}

/// All readers of a fetch.
#[derive(Debug, Default)]
pub(super) struct Readers {
    slots: Vec<Option<ReaderState>>,
    live: usize,
    cuts: u32,
}

impl Readers {
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Bytes that may wait for the slowest of them.
    pub(super) fn window(&self) -> usize {
        if self.live > 1 { SHARED_WINDOW_BYTES_MAX } else { WINDOW_BYTES_MAX }
    }

    /// Adds a reader that has read nothing yet.
    pub(super) fn add(&mut self) -> usize {
        let state = ReaderState {
            next: 0,
            bytes: 0,
            waker: None,
            woken: false,
            held: Duration::ZERO,
            counted: None,
        };
        // Searching for a free slot is only worth it when some readers have left.
        let some_left = self.live < self.slots.len();
        self.live += 1;
        match some_left.then(|| self.slots.iter().position(Option::is_none)).flatten() {
            Some(free) => {
                self.slots[free] = Some(state);
                free
            }
            None => {
                self.slots.push(Some(state));
                self.slots.len() - 1
            }
        }
    }

    /// Removes a reader, unless it was cut loose before.
    pub(super) fn remove(&mut self, slot: usize) {
        if self.slots.get_mut(slot).is_some_and(|slot| slot.take().is_some()) {
            self.live -= 1;
        }
    }

    /// What a reader gets next, now that it asks.
    pub(super) fn next(&mut self, slot: usize) -> Next {
        match self.slots.get_mut(slot) {
            Some(Some(reader)) => {
                reader.woken = false;
                Next::Chunk(reader.next)
            }
            _ => Next::Cut,
        }
    }

    /// Notes that a reader has taken a chunk of so many bytes.
    pub(super) fn took(&mut self, slot: usize, bytes: usize) {
        if let Some(Some(reader)) = self.slots.get_mut(slot) {
            reader.next += 1;
            reader.bytes += bytes as u64;
        }
    }

    /// Notes that a reader has nothing to read.
    pub(super) fn waits(&mut self, slot: usize, waker: &Waker) {
        if let Some(Some(reader)) = self.slots.get_mut(slot) {
            reader.woken = false;
            reader.waker = Some(waker.clone());
        }
    }

    /// All who wait; they get their turn.
    pub(super) fn wake(&mut self) -> Vec<Waker> {
        let wake = |reader: &mut ReaderState| {
            let waker = reader.waker.take()?;
            reader.woken = true;
            Some(waker)
        };
        self.slots.iter_mut().flatten().filter_map(wake).collect()
    }

    /// The chunk that the slowest reader takes next; `None` without readers.
    pub(super) fn slowest(&self) -> Option<usize> {
        self.slots.iter().flatten().map(|reader| reader.next).min()
    }

    /// Who waits for whom, where so many bytes were handed on in all and the window is full.
    pub(super) fn room(&self, pushed: u64) -> Room {
        let mut readers = self.slots.iter().flatten();
        let waiting = readers.any(|reader| reader.bytes == pushed && reader.waker.is_some());
        let mut behind = self.slots.iter().flatten().filter(|reader| reader.holds(pushed));
        if waiting { Room::Held { in_turn: behind.all(|reader| reader.woken) } } else { Room::Full }
    }

    /// Counts the time that somebody has waited against those for whom the window is full, where so
    /// many bytes were handed on, and cuts loose who has held others back for too long. Returns how
    /// many were.
    pub(super) fn count_hold(&mut self, pushed: u64, progress: Progress) -> usize {
        let limit = HOLD_MAX / 2_u32.pow(self.cuts.min(HALVINGS_MAX));
        let mut cut = 0;
        for slot in &mut self.slots {
            let Some(reader) = slot.as_mut().filter(|reader| reader.holds(pushed)) else {
                continue;
            };
            reader.count(pushed, progress);
            if reader.held >= limit {
                *slot = None;
                cut += 1;
            }
        }
        self.live -= cut;
        self.cuts = self.cuts.saturating_add(u32::try_from(cut).unwrap_or(u32::MAX));
        cut
    }
}

impl ReaderState {
    /// Whether the window is full for it.
    fn holds(&self, pushed: u64) -> bool {
        pushed - self.bytes >= SHARED_WINDOW_BYTES_MAX as u64
    }

    fn count(&mut self, pushed: u64, Progress { began, since, now }: Progress) {
        let (until, bytes) = self.counted.unwrap_or((since, self.bytes));
        let took = (self.bytes - bytes) as f64 / pushed.max(1) as f64;
        let due = now.saturating_duration_since(began).mul_f64(2.0 * took);
        let fine = since.saturating_duration_since(until) + due;
        let held = self.held + now.saturating_duration_since(since);
        self.held = held.saturating_sub(fine);
        self.counted = Some((now, self.bytes));
    }
}
