//! A pod: what `RedisLog` does with the log, around the real mirror, follower and lease.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use outrigger_coherence::lease::Lease;
use outrigger_coherence::mirror::HOLD_MS_MAX;
use outrigger_coherence::{Content, Mirror, Seq, Verdict};
use outrigger_store::Entry;

use crate::active::ActiveHolds;
use crate::exec::{Bell, Life, MS, Micros};
use crate::net::{Link, keep};
use crate::rules::Rule;
use crate::tasks::{drain, follow, heartbeat};
use crate::world::{LEASE_MS, Sim};

/// The clock of holds runs so much faster, so that a schedule need not last minutes.
pub const HOLD_CLOCK: u64 = 40;
/// How long a hold lasts whose pod does not end it.
pub const HOLD_MS: u64 = HOLD_MS_MAX / HOLD_CLOCK;
/// Time for clocks to run differently.
pub const DRIFT_MS: u64 = LEASE_MS / 10;

/// A response in a tier.
#[derive(Clone)]
pub struct Stored {
    pub entry: Arc<Entry>,
    pub value: u64,
    /// When its fetch began.
    pub began: u64,
}

/// One life of a pod.
pub struct Pod {
    pub sim: Sim,
    pub life: Life,
    pub name: String,
    rate_ppm: u64,
    born: Micros,
    /// When this life began, in the order of everything.
    pub started: u64,
    pub mirror: Mirror,
    pub lease: Cell<Lease>,
    pub covered: Cell<Seq>,
    pub server_offset: Cell<u64>,
    /// Up to this position there may have been holds that the pod has not heard of.
    pub unheard: Cell<Seq>,
    pub connected: Cell<bool>,
    pub responsive: Cell<bool>,
    pub caught_up: Cell<bool>,
    pub heard_at: Cell<u64>,
    pub heard_last: Cell<Seq>,
    pub heard_micros: Cell<u64>,
    /// Whether the log was lost and found again.
    pub lost: Cell<bool>,
    /// When a command last failed, in virtual time.
    pub failed_at: Cell<Micros>,
    pub news: Cell<bool>,
    pub bell: Bell,
    pub alive: Cell<bool>,
    /// Keys with a write on its way that no hold announces.
    pub in_flight: RefCell<Vec<usize>>,
    pub outbox: RefCell<VecDeque<(u64, Content)>>,
    pub next_id: Cell<u64>,
    pub active: ActiveHolds,
    pub memory: RefCell<HashMap<usize, Stored>>,
    pub commands: Link,
    pub reading: Link,
}

impl Pod {
    /// Starts a life.
    pub fn start(sim: &Sim, life: Life) -> Rc<Self> {
        let bell = Bell::default();
        let pod = Rc::new(Pod {
            sim: Rc::clone(sim),
            life,
            name: format!("pod{}", life.process),
            rate_ppm: 970_000 + sim.below(60_000),
            born: sim.exec.now(),
            started: sim.exec.stamp(),
            mirror: Mirror::default(),
            lease: Cell::default(),
            covered: Cell::new(0),
            server_offset: Cell::new(0),
            unheard: Cell::new(0),
            connected: Cell::new(false),
            responsive: Cell::new(true),
            caught_up: Cell::new(false),
            heard_at: Cell::new(0),
            heard_last: Cell::new(0),
            heard_micros: Cell::new(0),
            lost: Cell::new(false),
            failed_at: Cell::new(0),
            news: Cell::new(false),
            commands: Link::new(&bell, false),
            reading: Link::new(&bell, true),
            bell,
            alive: Cell::new(true),
            in_flight: RefCell::default(),
            outbox: RefCell::default(),
            next_id: Cell::new(0),
            active: ActiveHolds::default(),
            memory: RefCell::default(),
        });
        sim.exec.spawn(Some(life), keep(Rc::clone(&pod), |pod| &pod.commands));
        sim.exec.spawn(Some(life), keep(Rc::clone(&pod), |pod| &pod.reading));
        sim.exec.spawn(Some(life), follow(Rc::clone(&pod)));
        sim.exec.spawn(Some(life), heartbeat(Rc::clone(&pod)));
        sim.exec.spawn(Some(life), drain(Rc::clone(&pod)));
        pod
    }

    /// Milliseconds of the pod's clock.
    pub fn now(&self) -> u64 {
        (self.sim.exec.now() - self.born) * self.rate_ppm / 1_000_000 / MS
    }

    pub fn ring(&self) {
        self.sim.exec.ring(&self.bell);
    }

    /// `PurgeLog::covers`.
    pub fn covers(&self, seq: Seq) -> bool {
        self.mirror.applied() >= seq || self.covered.get() >= seq
    }

    /// `PurgeLog::until_covers`.
    pub async fn until_covers(&self, seq: Seq, limit: Micros) -> bool {
        let is_heard = self.connected.get() && self.responsive.get();
        self.covers(seq) || (is_heard && self.until_applied(seq, limit).await) || self.covers(seq)
    }

    /// `RedisLog::has_lease`.
    pub fn has_lease(&self) -> bool {
        let applied =
            if self.sim.rules.has(Rule::LeaseNeed) { self.mirror.applied() } else { Seq::MAX };
        self.lease.get().holds(self.now(), applied)
    }

    /// `RedisLog::may_miss_holds`.
    pub fn may_miss_holds(&self) -> bool {
        let unheard = self.unheard.get();
        self.sim.rules.has(Rule::UnheardWait)
            && unheard > 0
            && !self.covers(unheard + (LEASE_MS + DRIFT_MS) * MS)
    }

    pub fn knows_others(&self) -> bool {
        self.caught_up.get() || !self.sim.rules.has(Rule::TierNeedsCatchUp)
    }

    pub fn is_purged(&self, entry: &Entry) -> bool {
        self.mirror.verdict(entry) == Verdict::Purged
    }
}
