//! A pod: what `SharedLog` does with the log, around the real mirror, follower and lease.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use outrigger_coherence::follow::Follower;
use outrigger_coherence::holds::Ends;
use outrigger_coherence::lease::Lease;
use outrigger_coherence::mirror::HOLD_MS_MAX;
use outrigger_coherence::{Action, Content, Mirror, Record, Seq, Verdict};
use outrigger_store::Entry;

use crate::exec::{Bell, Life, MS, Micros};
use crate::net::{Link, call, keep, read};
use crate::redis::AcksAnswer;
use crate::rules::{Rule, grant};
use crate::world::{APPEND_TIMEOUT, LEASE_MS, Sim, short};

/// The clock of holds runs so much faster, so that a schedule need not last minutes.
const HOLD_CLOCK: u64 = 30;
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
    pub mirror: Mirror,
    pub lease: Cell<Lease>,
    pub covered: Cell<Seq>,
    server_offset: Cell<u64>,
    heard_at: Cell<u64>,
    heard_last: Cell<Seq>,
    /// Before this position the pod may have missed a hold.
    blind: Cell<Seq>,
    server_clock: Cell<u64>,
    connected: Cell<bool>,
    pub caught_up: Cell<bool>,
    contact_since: Cell<u64>,
    news: Cell<bool>,
    bell: Bell,
    pub alive: Cell<bool>,
    /// Keys with a write on its way that no hold announces.
    pub in_flight: RefCell<Vec<usize>>,
    pub outbox: RefCell<VecDeque<(u64, Content)>>,
    next_id: Cell<u64>,
    pub memory: RefCell<HashMap<usize, Stored>>,
    commands: Link,
    reading: Link,
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
            mirror: Mirror::default(),
            lease: Cell::default(),
            covered: Cell::new(0),
            server_offset: Cell::new(0),
            heard_at: Cell::new(0),
            heard_last: Cell::new(0),
            blind: Cell::new(0),
            server_clock: Cell::new(0),
            connected: Cell::new(false),
            caught_up: Cell::new(false),
            contact_since: Cell::new(u64::MAX),
            news: Cell::new(false),
            commands: Link::new(&bell),
            reading: Link::new(&bell),
            bell,
            alive: Cell::new(true),
            in_flight: RefCell::default(),
            outbox: RefCell::default(),
            next_id: Cell::new(0),
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

    fn ring(&self) {
        self.sim.exec.ring(&self.bell);
    }

    pub fn reopen(&self) {
        self.commands.reopen(&self.sim);
        self.reading.reopen(&self.sim);
    }

    /// `State::absorb`.
    fn absorb(&self, follower: &mut Follower, record: &Record) {
        let applied = self.mirror.applied();
        let now = self.now() * HOLD_CLOCK;
        let content = record.content.clone().unwrap_or_else(|| Content::reset(""));
        if self.sim.rules.has(Rule::GapDetection) {
            let absorbed = follower.absorb(&self.mirror, record, now);
            self.sim.note(|| format!("{}     {absorbed:?} {}", self.name, short(record.seq)));
        } else {
            self.mirror.apply(record.seq, &content, now);
        }
        if record.seq > applied && record.prev != applied {
            let missed = if record.prev > applied { record.prev } else { record.seq };
            self.blind.set(self.blind.get().max(missed));
        }
        if content.action == Action::Reset {
            self.blind.set(self.blind.get().max(record.seq));
        }
        self.ring();
    }

    async fn until_applied(&self, seq: Seq, limit: Micros) -> bool {
        let until = self.sim.exec.now() + limit;
        let found = || (self.mirror.applied() >= seq).then_some(());
        self.sim.exec.wait(&self.bell, until, found).await.is_some()
    }

    /// `SharedLog::append`.
    async fn append(&self, content: &Content) -> Option<Seq> {
        let (content, floor) = (content.clone(), self.mirror.applied());
        let run = move |redis: &mut crate::redis::Redis, now| redis.append(&content, floor, now);
        call(&self.sim, &self.commands, APPEND_TIMEOUT, run).await
    }

    /// `SharedLog::in_effect`.
    async fn in_effect(&self, seq: Seq, content: &Content) {
        if !self.until_applied(seq, APPEND_TIMEOUT).await {
            let ends = Ends::Applied(seq);
            self.mirror.hold(content.matcher.clone(), content.uri_digest, ends);
        }
    }

    /// `SharedLog::purge`: the position, or `None` if it is queued.
    pub async fn purge(&self, content: &Content) -> Option<Seq> {
        let seq = self.append(content).await;
        match seq {
            Some(seq) => self.in_effect(seq, content).await,
            None => self.push(content.clone()),
        }
        seq
    }

    /// `Outbox::push`.
    pub fn push(&self, content: Content) {
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.sim.note(|| format!("{}     queues {}", self.name, crate::world::said(&content)));
        self.sim.checks.queued(self.life, id, &content);
        if self.sim.rules.has(Rule::OutboxHolds) {
            let ends = Ends::Released(id);
            self.mirror.hold(content.matcher.clone(), content.uri_digest, ends);
        }
        self.outbox.borrow_mut().push_back((id, content));
        self.ring();
    }

    /// `SharedLog::hold`: the position of the hold, or `None` if it could not be placed.
    pub async fn hold(&self, content: &Content, everywhere: bool) -> Option<Seq> {
        let seq = self.append(content).await?;
        self.in_effect(seq, content).await;
        if everywhere && !self.applied_everywhere(seq).await {
            self.push(crate::ops::ending(content, seq));
            return None;
        }
        Some(seq)
    }

    async fn ask_acks(&self, seq: Seq) -> Option<AcksAnswer> {
        let run = move |redis: &mut crate::redis::Redis, now| redis.acks(seq, DRIFT_MS, now);
        call(&self.sim, &self.commands, APPEND_TIMEOUT, run).await
    }

    /// Since when, in this pod's clock, the list of pods has been complete for all we know.
    fn complete_since(&self, began: u64, known_ms: u64) -> u64 {
        let rules = &self.sim.rules;
        let asked_at = if rules.has(Rule::ListAgeAtAnswer) { self.now() } else { began };
        let mut contact = self.contact_since.get();
        if rules.has(Rule::ContactByLink) {
            contact = contact.max(self.commands.since.get());
        }
        contact.max(asked_at.saturating_sub(known_ms))
    }

    /// `SharedLog::applied_everywhere`.
    async fn applied_everywhere(&self, seq: Seq) -> bool {
        let rules = &self.sim.rules;
        let lease_ms = LEASE_MS + DRIFT_MS;
        let began = self.now();
        if !rules.has(Rule::WaitForAcks) {
            return true;
        }
        loop {
            let Some(acks) = self.ask_acks(seq).await else { return false };
            if rules.has(Rule::HoldStillInLog) && !acks.in_log {
                return false;
            }
            let since = self.complete_since(began, acks.known_ms);
            let settled = self.now() >= since.saturating_add(lease_ms) || !rules.has(Rule::WaitOutLeases);
            if acks.missing.is_empty() && settled {
                return true;
            }
            if self.now() > began + lease_ms * 2 {
                return false;
            }
            let pause = if acks.missing.is_empty() { 20 } else { 2 };
            self.sim.exec.sleep(pause * MS).await;
        }
    }

    /// `SharedLog::acknowledged`; whether nothing was missing.
    pub async fn acknowledged(&self, seq: Seq, limit: Micros) -> bool {
        let until = self.sim.exec.now() + limit;
        let began = self.now();
        let mut pause = MS;
        while self.sim.exec.now() < until {
            if let Some(acks) = self.ask_acks(seq).await {
                let since = self.complete_since(began, acks.known_ms);
                let settled = self.now() >= since.saturating_add(LEASE_MS + DRIFT_MS);
                let is_sure = settled || !self.sim.rules.has(Rule::WaitAllSettles);
                let is_there = acks.in_log || !self.sim.rules.has(Rule::WaitAllSettles);
                if acks.missing.is_empty() && acks.live > 0 && is_sure && is_there {
                    return true;
                }
            }
            self.sim.exec.sleep(pause).await;
            pause = (pause * 2).min(16 * MS);
        }
        false
    }

    /// `SharedLog::seen`.
    pub async fn seen(&self) -> Seq {
        let run = |redis: &mut crate::redis::Redis, _| redis.last();
        match call(&self.sim, &self.commands, APPEND_TIMEOUT, run).await {
            Some(last) => last.max(self.mirror.applied()),
            None => self.server_now(),
        }
    }

    /// `SharedLog::server_now_micros`.
    pub fn server_now(&self) -> Seq {
        const MARGIN: Micros = 20 * MS;
        let offset = self.server_offset.get();
        let now = match offset {
            0 => self.sim.redis.borrow().clock(self.sim.exec.now()),
            _ => offset + self.now() * MS,
        };
        let drift = (self.now() - self.heard_at.get()) * MS / 10;
        match self.sim.rules.has(Rule::DriftMargin) {
            true => now.max(self.heard_last.get()).max(self.mirror.applied()) + MARGIN + drift,
            false => now + MARGIN,
        }
    }

    /// `PurgeLog::covers`.
    pub fn covers(&self, seq: Seq) -> bool {
        self.mirror.applied() >= seq || self.covered.get() >= seq
    }

    /// `PurgeLog::until_covers`.
    pub async fn until_covers(&self, seq: Seq, limit: Micros) -> bool {
        self.covers(seq) || self.until_applied(seq, limit).await || self.covers(seq)
    }

    /// `SharedLog::has_lease`.
    pub fn has_lease(&self) -> bool {
        let applied = if self.sim.rules.has(Rule::LeaseNeed) { self.mirror.applied() } else { Seq::MAX };
        self.lease.get().holds(self.now(), applied)
    }

    /// Whether all holds that matter are known.
    pub fn sees_holds(&self) -> bool {
        !self.sim.rules.has(Rule::BlindWait)
            || self.server_clock.get() >= self.blind.get() + HOLD_MS * MS * 11 / 10
    }

    pub fn knows_others(&self) -> bool {
        let rules = &self.sim.rules;
        let is_read = !rules.has(Rule::CaughtUpApplied) || self.mirror.applied() > 0;
        !rules.has(Rule::TierNeedsCatchUp) || (self.caught_up.get() && is_read)
    }

    pub fn is_void(&self, entry: &Entry) -> bool {
        self.mirror.verdict(entry) == Verdict::Void
    }
}

/// `heartbeat::run`.
async fn heartbeat(pod: Rc<Pod>) {
    let sim = Rc::clone(&pod.sim);
    pod.contact_since.set(pod.now());
    let mut version = pod.commands.version.get();
    loop {
        if pod.caught_up.get() {
            beat(&pod).await;
        }
        pod.mirror.expire_holds(pod.now() * HOLD_CLOCK);
        let until = sim.exec.now() + LEASE_MS * MS / 4;
        let found = || (pod.news.get() || pod.commands.version.get() != version).then_some(());
        sim.exec.wait(&pod.bell, until, found).await;
        pod.news.set(false);
        if pod.commands.version.get() != version {
            version = pod.commands.version.get();
            let mut lease = pod.lease.get();
            lease.dropped();
            pod.lease.set(lease);
            pod.contact_since.set(pod.now());
        }
    }
}

async fn beat(pod: &Rc<Pod>) {
    let (asked, applied) = (pod.now(), pod.mirror.applied());
    let process = pod.life.process;
    let run = move |redis: &mut crate::redis::Redis, now| {
        redis.heartbeat(process, applied, LEASE_MS, now)
    };
    let Some((last, clock)) = call(&pod.sim, &pod.commands, APPEND_TIMEOUT, run).await else {
        return;
    };
    pod.server_offset.set(clock.saturating_sub(asked * MS));
    pod.heard_at.set(asked);
    pod.heard_last.set(last);
    pod.server_clock.set(clock);
    if last == applied {
        pod.covered.set(pod.covered.get().max(clock - 1));
    }
    let mut lease = pod.lease.get();
    grant(&pod.sim.rules, &mut lease, asked, pod.now(), LEASE_MS, last);
    pod.lease.set(lease);
}

/// `reader::run`.
async fn follow(pod: Rc<Pod>) {
    const BLOCK: Micros = 500 * MS;
    const GRACE: Micros = 1000 * MS;
    let sim = Rc::clone(&pod.sim);
    let mut follower = Follower::default();
    loop {
        let version = pod.reading.version.get();
        loop {
            let block = if pod.connected.get() { BLOCK } else { MS };
            let after = pod.mirror.applied();
            let Some(records) = read(&sim, &pod.reading, after, block, BLOCK + GRACE).await else {
                break;
            };
            for record in &records {
                pod.absorb(&mut follower, record);
            }
            if !pod.connected.replace(true) || !records.is_empty() {
                pod.caught_up.set(true);
                pod.news.set(true);
                pod.ring();
            }
        }
        pod.reading.reopen(&sim);
        pod.connected.set(false);
        let until = sim.exec.now() + GRACE;
        let found = || (pod.reading.version.get() != version).then_some(());
        sim.exec.wait(&pod.reading.bell, until, found).await;
    }
}

/// `outbox::run`.
async fn drain(pod: Rc<Pod>) {
    let sim = Rc::clone(&pod.sim);
    loop {
        let found = || pod.outbox.borrow().front().cloned();
        let Some((id, content)) = sim.exec.wait(&pod.bell, Micros::MAX, found).await else {
            return;
        };
        match pod.append(&content).await {
            Some(seq) => {
                pod.in_effect(seq, &content).await;
                pod.outbox.borrow_mut().retain(|(have, _)| *have != id);
                sim.checks.released(pod.life, id);
                pod.mirror.release(id);
            }
            None => sim.exec.sleep(100 * MS).await,
        }
    }
}
