//! What a pod does all the time: it keeps its lease, follows the log, and appends what waits.

use std::rc::Rc;

use outrigger_coherence::follow::{Absorbed, Follower};
use outrigger_coherence::{Action, Content, Record};

use crate::exec::{MS, Micros};
use crate::net::{Reply, read};
use crate::pod::{HOLD_CLOCK, Pod};
use crate::redis::Redis;
use crate::rules::Rule;
use crate::world::{LEASE_MS, short};

/// After so many beats without an answer the connection is opened anew.
const UNANSWERED_MAX: u32 = 6;

impl Pod {
    /// `State::absorb`.
    fn absorb(&self, follower: &mut Follower, record: &Record) {
        let before = self.mirror.applied();
        let now = self.now() * HOLD_CLOCK;
        let content = record.content.clone().unwrap_or_else(|| Content::reset(""));
        let mut absorbed = Absorbed::Next;
        if self.sim.rules.has(Rule::GapDetection) {
            absorbed = follower.absorb(&self.mirror, record, now);
            self.sim.note(|| format!("{}     {absorbed:?} {}", self.name, short(record.seq)));
        } else {
            self.mirror.apply(record.seq, &content, now);
        }
        let is_reset = content.action == Action::Reset;
        if absorbed != Absorbed::Known && is_reset {
            self.unheard.set(self.unheard.get().max(record.seq));
        } else if absorbed != Absorbed::Known && record.prev != before {
            self.unheard.set(self.unheard.get().max(record.prev));
        }
        let is_lost = absorbed == Absorbed::AfterGap || (is_reset && before > 0);
        if is_lost && self.sim.rules.has(Rule::GapsAreLosses) {
            self.lost.set(true);
        }
        self.ring();
    }
}

/// `heartbeat::run`.
pub async fn heartbeat(pod: Rc<Pod>) {
    let sim = Rc::clone(&pod.sim);
    let mut version = pod.commands.version.get();
    let mut unanswered = 0;
    loop {
        if pod.caught_up.get() {
            unanswered = if beat(&pod).await { 0 } else { unanswered + 1 };
            if unanswered >= UNANSWERED_MAX {
                unanswered = 0;
                pod.commands.reopen(&sim);
            }
        }
        pod.repeat_holds().await;
        pod.mirror.expire_holds(pod.now() * HOLD_CLOCK);
        let until = sim.exec.now() + LEASE_MS * MS / 4;
        let found = || (pod.news.get() || pod.commands.version.get() != version).then_some(());
        sim.exec.wait(&pod.bell, until, found).await;
        pod.news.set(false);
        if pod.commands.version.get() != version {
            version = pod.commands.version.get();
            if pod.commands.connections.get() > 1 {
                pod.lost.set(true);
            }
            let mut lease = pod.lease.get();
            lease.dropped();
            pod.lease.set(lease);
        }
    }
}

/// One beat; whether it was answered.
async fn beat(pod: &Pod) -> bool {
    let (asked, applied) = (pod.now(), pod.mirror.applied());
    let process = pod.life.process;
    let run = move |redis: &mut Redis, now| redis.heartbeat(process, applied, LEASE_MS, now);
    let Some((last, clock)) = pod.run_anyway(run).await else { return false };
    pod.server_offset.set(clock.saturating_sub(asked * MS));
    pod.heard_at.set(pod.now());
    pod.heard_last.set(last);
    pod.heard_micros.set(clock);
    if last == applied {
        pod.covered.set(pod.covered.get().max(clock - 1));
    }
    let mut lease = pod.lease.get();
    if pod.sim.rules.has(Rule::LeaseByAnswer) && pod.now() >= lease.until() {
        lease.dropped();
    }
    lease.granted(asked, LEASE_MS, last);
    pod.lease.set(lease);
    true
}

/// `reader::run`.
pub async fn follow(pod: Rc<Pod>) {
    const BLOCK: Micros = 500 * MS;
    const GRACE: Micros = 1000 * MS;
    let sim = Rc::clone(&pod.sim);
    let mut follower = Follower::default();
    loop {
        let version = pod.reading.version.get();
        loop {
            let block = if pod.connected.get() { BLOCK } else { MS };
            let after = pod.mirror.applied();
            let asked = read(&sim, &pod.reading, after, block, BLOCK + GRACE);
            let Reply::Value(records) = asked.await else { break };
            for record in &records {
                pod.absorb(&mut follower, record);
            }
            if pod.mirror.applied() == 0 && sim.rules.has(Rule::EmptyLogSaysNothing) {
                let process = pod.life.process;
                let run = move |redis: &mut Redis, now| redis.heartbeat(process, 0, LEASE_MS, now);
                if pod.run_anyway(run).await.is_none() {
                    break;
                }
                continue;
            }
            if !pod.caught_up.get() && pod.mirror.applied() > 0 {
                // Whether the log is whole shows when a heartbeat has been answered.
                let (process, applied) = (pod.life.process, pod.mirror.applied());
                let run =
                    move |redis: &mut Redis, now| redis.heartbeat(process, applied, LEASE_MS, now);
                match pod.run_anyway(run).await {
                    None => break,
                    Some((last, _)) if last > applied => continue,
                    Some(_) => {}
                }
            }
            if !pod.connected.replace(true) || !records.is_empty() {
                pod.caught_up.set(true);
                pod.news.set(true);
                pod.ring();
            }
        }
        pod.reading.reopen(&sim);
        if pod.connected.replace(false) {
            pod.lost.set(true);
        }
        let until = sim.exec.now() + GRACE;
        let found = || (pod.reading.version.get() != version).then_some(());
        sim.exec.wait(&pod.reading.bell, until, found).await;
    }
}

/// `outbox::run`.
pub async fn drain(pod: Rc<Pod>) {
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
