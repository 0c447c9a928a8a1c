//! The Redis server: the stream, the list of pods, the scripts of `scripts.rs` line by line, and
//! what may become of them: trimmed, flushed, lost in a fail-over.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use outrigger_coherence::{Content, Record, Seq};

use crate::exec::Micros;

/// What a replica has.
#[derive(Clone, Default)]
struct Data {
    log: VecDeque<Rc<Record>>,
    /// Position applied, and the end of the lease in milliseconds of the server's clock.
    pods: BTreeMap<usize, (Seq, u64)>,
    began: Option<u64>,
    /// The server that a heartbeat last met here: `*server`.
    server: Option<u64>,
}

/// The clock less virtual time, at first.
pub const CLOCK_AHEAD: i64 = 1_000_000_000;
/// The position of the first record.
const FIRST: Seq = 1_000_000;
/// States that a replica may have stopped at.
const BEHIND_MAX: usize = 24;

/// What an append did.
#[derive(Clone, Debug)]
pub struct Appended {
    pub seq: Seq,
    pub content: Content,
}

/// The answer to a question for acknowledgements.
#[derive(Clone, Debug, Default)]
pub struct AcksAnswer {
    pub known_ms: u64,
    pub live: usize,
    pub applied: usize,
    pub missing: Vec<usize>,
    /// Whether the log still has the position.
    pub is_there: bool,
}

pub struct Redis {
    data: Data,
    before: VecDeque<Data>,
    events_max: usize,
    /// The clock less virtual time.
    pub clock_ahead: i64,
    /// Which server this is: another one after each fail-over.
    pub server: u64,
    pub is_up: bool,
    /// Whether the first heartbeat on another server has the log begin anew.
    resets_on_new_server: bool,
    /// Whether this server lacks what the one before had, and the log does not say so.
    lacks: bool,
    /// Whether such a log was taken for whole.
    is_trusted: bool,
    /// What was appended since somebody last asked.
    pub appended: Vec<Appended>,
}

impl Redis {
    pub fn new(events_max: usize, resets_on_new_server: bool) -> Self {
        // The log is old, so that nobody wonders what it said before.
        let mut data = Data { server: Some(1), ..Data::default() };
        let content = Some(Content::reset("pod"));
        data.log.push_back(Rc::new(Record { seq: FIRST, prev: 0, content }));
        Redis {
            data,
            before: VecDeque::new(),
            events_max,
            clock_ahead: CLOCK_AHEAD,
            server: 1,
            is_up: true,
            resets_on_new_server,
            lacks: false,
            is_trusted: false,
            appended: Vec::new(),
        }
    }

    /// The virtual time of a position.
    pub fn time_of(&self, seq: Seq) -> Micros {
        seq.saturating_add_signed(-self.clock_ahead)
    }

    pub fn clock(&self, now: Micros) -> u64 {
        now.saturating_add_signed(self.clock_ahead)
    }

    pub fn last(&self) -> Seq {
        self.data.log.back().map_or(0, |record| record.seq)
    }

    fn changes(&mut self) {
        if self.before.len() == BEHIND_MAX {
            self.before.pop_front();
        }
        self.before.push_back(self.data.clone());
    }

    fn add(&mut self, prev: Seq, floor: Seq, content: &Content, now: Micros) -> Seq {
        let seq = self.clock(now).max(prev + 1).max(floor + 1);
        self.data.log.push_back(Rc::new(Record { seq, prev, content: Some(content.clone()) }));
        while self.data.log.len() > self.events_max {
            self.data.log.pop_front();
        }
        self.appended.push(Appended { seq, content: content.clone() });
        seq
    }

    /// The last position, behind a reset if the log has lost something.
    fn last_after_reset(&mut self, floor: Seq, has_moved: bool, now: Micros) -> Seq {
        let last = self.last();
        if last == 0 || last < floor || has_moved {
            self.lacks = false;
            return self.add(last, floor, &Content::reset("pod"), now);
        }
        last
    }

    /// Whether a log that lacks something has been taken for whole since somebody last asked.
    pub fn was_trusted(&mut self) -> bool {
        std::mem::take(&mut self.is_trusted)
    }

    /// `scripts::APPEND`.
    pub fn append(&mut self, content: &Content, floor: Seq, now: Micros) -> Seq {
        self.changes();
        let last = self.last_after_reset(floor, false, now);
        self.is_trusted |= self.lacks;
        self.add(last, floor, content, now)
    }

    /// `scripts::HEARTBEAT`.
    pub fn heartbeat(&mut self, pod: usize, applied: Seq, lease: u64, now: Micros) -> (Seq, u64) {
        self.changes();
        let known = self.data.server.replace(self.server);
        let has_moved = known.is_some_and(|known| known != self.server);
        let last = self.last_after_reset(applied, has_moved && self.resets_on_new_server, now);
        // Where no heartbeat was remembered it cannot know.
        self.is_trusted |= self.lacks && known.is_none();
        self.lacks = false;
        let clock = self.clock(now);
        let ms = clock / 1000;
        self.data.began.get_or_insert(ms);
        self.data.pods.insert(pod, (applied, ms + lease));
        (last, clock)
    }

    /// `scripts::ACKS`.
    pub fn acks(&mut self, want: Seq, margin: u64, now: Micros) -> AcksAnswer {
        let ms = self.clock(now) / 1000;
        let is_there = self.data.log.iter().any(|record| record.seq == want);
        let mut answer = AcksAnswer { is_there, ..AcksAnswer::default() };
        for (pod, (applied, till)) in &self.data.pods {
            if till + margin > ms {
                answer.live += 1;
                if *applied >= want {
                    answer.applied += 1;
                } else {
                    answer.missing.push(*pod);
                }
            }
        }
        self.data.pods.retain(|_, (_, till)| *till + 60_000 >= ms);
        answer.known_ms = ms.saturating_sub(self.data.began.unwrap_or(ms));
        answer
    }

    /// `XREAD` after a position.
    pub fn read(&self, after: Seq) -> Vec<Rc<Record>> {
        self.data.log.iter().filter(|record| record.seq > after).map(Rc::clone).collect()
    }

    /// `FLUSHALL`.
    pub fn flush(&mut self) {
        self.data = Data::default();
        self.before.clear();
        self.lacks = false;
    }

    /// Another server takes over, which has not seen the last changes; or the same one starts with
    /// what it had written to disk.
    pub fn fail_over(&mut self, lost: usize) {
        let at = self.before.len().saturating_sub(lost);
        if let Some(data) = self.before.get(at) {
            self.data = data.clone();
            self.lacks = true;
        }
        self.before.clear();
        self.server += 1;
    }
}
