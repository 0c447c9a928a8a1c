//! Everything around the pods: the server, the network, the origin, the shared tier, chance.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use outrigger_coherence::{Action, Content, Matcher, Seq};

use crate::check::Checks;
use crate::exec::{Bell, Exec, MS, Micros};
use crate::net::Conn;
use crate::pod::{Pod, Stored};
use crate::redis::Redis;
use crate::rules::{Rule, Rules};
use crate::stories::{self, Story};

/// How consistent a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Eventual,
    Causal,
    Strong,
}

/// The keys: one of each level.
pub const LEVELS: [Level; 3] = [Level::Eventual, Level::Causal, Level::Strong];

/// Length of a lease, milliseconds.
pub const LEASE_MS: u64 = 400;
/// How long an append may take.
pub const APPEND_TIMEOUT: Micros = 100 * MS;

/// What a schedule is like.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What is told, instead of what chance brings.
    pub story: Option<Story>,
    pub pods: usize,
    pub clients: usize,
    pub ops: usize,
    pub events_max: usize,
    pub faults: usize,
    pub slow_percent: u64,
    pub has_tier: bool,
    /// How often the way to the origin is long, and how long, milliseconds.
    pub slow_origin: (u64, u64),
    /// Most of the requests are for this key.
    pub focus: usize,
    /// Longest pause of a client, milliseconds.
    pub pause_ms: u64,
}

impl Config {
    /// The config of a seed. One in three tells a story.
    fn chosen(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let story =
            seed.is_multiple_of(3).then(|| stories::ALL[(seed / 3) as usize % stories::ALL.len()]);
        let config = Self::by_chance(rng);
        match story {
            None => config,
            // Before a hold is repeated the write is over, or it is not.
            Some(Story::LostHold) => {
                let slow_origin = (60, if rng.bool() { 300 } else { 1200 });
                Config { story, pods: 3, slow_origin, ..config }
            }
            Some(Story::EmptyLog) => Config { story, pods: 3, has_tier: true, ..config },
            Some(Story::Lagging) => Config { story, pods: 3, has_tier: false, ..config },
            Some(_) => Config { story, pods: 3, slow_percent: 0, ..config },
        }
    }

    fn by_chance(rng: &mut fastrand::Rng) -> Self {
        Config {
            story: None,
            pods: rng.usize(2..=3),
            clients: rng.usize(2..=4),
            ops: rng.usize(20..=60),
            events_max: [3, 6, 1000, 1000][rng.usize(..4)],
            faults: rng.usize(..=6),
            slow_percent: [0, 2, 10][rng.usize(..3)],
            has_tier: rng.u8(..4) > 0,
            slow_origin: (if rng.bool() { 20 } else { 0 }, 500),
            focus: [0, 1, 1, 2, 2, 2][rng.usize(..6)],
            pause_ms: [10, 40, 150][rng.usize(..3)],
        }
    }
}

impl Config {
    /// About how long the clients are busy.
    pub fn horizon(&self) -> Micros {
        self.ops as u64 * (self.pause_ms / 6 + 10) * MS
    }
}

/// One simulated world.
pub struct World {
    pub exec: Exec,
    pub rules: Rules,
    pub config: Config,
    rng: RefCell<fastrand::Rng>,
    pub redis: RefCell<Redis>,
    pub log_bell: Bell,
    pub conns: RefCell<Vec<Rc<Conn>>>,
    stalled: RefCell<Vec<[Micros; 2]>>,
    pub pods: RefCell<Vec<Rc<Pod>>>,
    pub tier: RefCell<HashMap<usize, Stored>>,
    pub origin: RefCell<Vec<u64>>,
    next_value: Cell<u64>,
    pub checks: Checks,
    pub busy: Cell<usize>,
    /// Rings when an answer is there, or a pod has died.
    pub answers: Bell,
    trace: Option<RefCell<Vec<String>>>,
}

/// A handle of the world.
pub type Sim = Rc<World>;

impl World {
    pub fn new(seed: u64, rules: Rules, traced: bool) -> Sim {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = Config::chosen(seed, &mut rng);
        let redis = Redis::new(config.events_max, rules.has(Rule::ResetOnNewServer));
        Rc::new(World {
            exec: Exec::new(config.pods),
            rules,
            config,
            rng: RefCell::new(rng),
            redis: RefCell::new(redis),
            log_bell: Bell::default(),
            conns: RefCell::default(),
            stalled: RefCell::new(vec![[0; 2]; config.pods]),
            pods: RefCell::default(),
            tier: RefCell::default(),
            origin: RefCell::new(vec![0; LEVELS.len()]),
            next_value: Cell::new(0),
            checks: Checks::default(),
            busy: Cell::new(0),
            answers: Bell::default(),
            trace: traced.then(RefCell::default),
        })
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().u64(..bound.max(1))
    }

    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// How long a message takes.
    pub fn latency(&self) -> Micros {
        if self.percent(self.config.slow_percent) {
            return 1000 + self.below(120 * MS);
        }
        100 + self.below(700)
    }

    pub fn stalled_until(&self, process: usize, is_reading: bool) -> Micros {
        self.stalled.borrow()[process][usize::from(is_reading)]
    }

    pub fn stall(&self, process: usize, is_reading: bool, until: Micros) {
        self.stalled.borrow_mut()[process][usize::from(is_reading)] = until;
    }

    /// Writes a line of the schedule.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let now = self.exec.now();
            trace.borrow_mut().push(format!("{:6}.{:03} ms  {}", now / MS, now % MS, line()));
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.trace.as_ref().map(|trace| trace.borrow().clone()).unwrap_or_default()
    }

    /// Notes what was appended, and tells those who wait for it.
    pub fn appended(&self) {
        self.note_trust();
        let appended = std::mem::take(&mut self.redis.borrow_mut().appended);
        if appended.is_empty() {
            return;
        }
        for event in appended {
            self.note(|| format!("log      {} {}", short(event.seq), said(&event.content)));
            self.checks.appended(self, event.seq, &event.content);
        }
        self.exec.ring(&self.log_bell);
    }

    pub fn new_value(&self) -> u64 {
        self.next_value.set(self.next_value.get() + 1);
        self.next_value.get()
    }

    /// The way to the origin or back.
    pub fn origin_latency(&self) -> Micros {
        let (percent, time) = self.config.slow_origin;
        match self.below(100) {
            n if n < percent => self.below(time * MS),
            ..40 => self.below(60 * MS),
            _ => 200 + self.below(3 * MS),
        }
    }

    /// Frees everything.
    pub fn clear(&self) {
        self.exec.clear();
        self.pods.borrow_mut().clear();
        self.conns.borrow_mut().clear();
    }
}

/// Positions for people: milliseconds of the server's clock.
pub fn short(seq: Seq) -> String {
    format!("#{}", seq.saturating_sub(crate::redis::CLOCK_AHEAD as u64))
}

/// An event for people.
pub fn said(content: &Content) -> String {
    let matcher = match &content.matcher {
        Matcher::Url { digests, .. } => format!("k{}", digests[0] - 1),
        other => format!("{other:?}"),
    };
    match content.action {
        Action::Purge { ends: Some(ends), .. } => {
            format!("purge {matcher} ends {} by {}", short(ends), content.pod)
        }
        action => format!("{} {matcher} by {}", action.as_str(), content.pod),
    }
}
