//! What `RedisLog` does for those who ask: append, hold, wait for the others.

use outrigger_coherence::holds::Ends;
use outrigger_coherence::{Content, Seq};

use crate::exec::{MS, Micros};
use crate::net::{Reply, call};
use crate::pod::{DRIFT_MS, Pod};
use crate::redis::{AcksAnswer, Redis};
use crate::rules::Rule;
use crate::world::{APPEND_TIMEOUT, LEASE_MS, said};

impl Pod {
    /// `RedisLog::run_anyway`.
    pub async fn run_anyway<T: 'static>(
        &self,
        run: impl FnOnce(&mut Redis, Micros) -> T + 'static,
    ) -> Option<T> {
        match call(&self.sim, &self.commands, APPEND_TIMEOUT, run).await {
            Reply::Value(value) => {
                self.responsive.set(true);
                Some(value)
            }
            Reply::Late => {
                self.responsive.set(false);
                self.failed_at.set(self.sim.exec.now());
                None
            }
            Reply::Failed => {
                self.failed_at.set(self.sim.exec.now());
                None
            }
        }
    }

    /// `RedisLog::run`.
    async fn run<T: 'static>(
        &self,
        run: impl FnOnce(&mut Redis, Micros) -> T + 'static,
    ) -> Option<T> {
        if !self.responsive.get() {
            return None;
        }
        self.run_anyway(run).await
    }

    pub async fn until_applied(&self, seq: Seq, limit: Micros) -> bool {
        let until = self.sim.exec.now() + limit;
        let found = || (self.mirror.applied() >= seq).then_some(());
        self.sim.exec.wait(&self.bell, until, found).await.is_some()
    }

    /// `RedisLog::append`.
    pub async fn append(&self, content: &Content) -> Option<Seq> {
        let (content, floor) = (content.clone(), self.mirror.applied());
        self.run(move |redis, now| redis.append(&content, floor, now)).await
    }

    /// `RedisLog::in_effect`.
    pub async fn in_effect(&self, seq: Seq, content: &Content) {
        if !self.until_applied(seq, APPEND_TIMEOUT).await {
            let ends = Ends::Applied(seq);
            self.mirror.hold(&content.matcher, ends);
        }
    }

    /// `RedisLog::purge`: the position, or `None` if it is queued.
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
        if self.outbox.borrow().iter().skip(1).any(|(_, waiting)| *waiting == content) {
            return;
        }
        let id = self.next_id.replace(self.next_id.get() + 1);
        self.sim.note(|| format!("{}     queues {}", self.name, said(&content)));
        self.sim.checks.queued(self.life, id, &content);
        if self.sim.rules.has(Rule::OutboxHolds) {
            let ends = Ends::Released(id);
            self.mirror.hold(&content.matcher, ends);
        }
        self.outbox.borrow_mut().push_back((id, content));
        self.ring();
    }

    /// `RedisLog::hold`: the number of the hold, or `None` if it could not be placed.
    pub async fn hold(&self, content: &Content, everywhere: bool) -> Option<u64> {
        let seq = self.append(content).await?;
        let id = self.active.begin(content.clone(), seq, self.now());
        self.in_effect(seq, content).await;
        if everywhere && !self.applied_everywhere(seq).await {
            self.give_up(id, content);
            return None;
        }
        Some(id)
    }

    async fn ask_acks(&self, seq: Seq) -> Option<AcksAnswer> {
        self.run(move |redis, now| redis.acks(seq, DRIFT_MS, now)).await
    }

    /// `RedisLog::is_settled`.
    fn is_settled(&self, began: u64, known_ms: u64) -> bool {
        let now = self.now();
        let asked_at = if self.sim.rules.has(Rule::ListAgeAtAnswer) { now } else { began };
        let contact = self.commands.since.get().unwrap_or(now);
        let since = contact.max(asked_at.saturating_sub(known_ms));
        now >= since + LEASE_MS + DRIFT_MS || !self.sim.rules.has(Rule::WaitOutLeases)
    }

    /// `RedisLog::applied_everywhere`.
    async fn applied_everywhere(&self, seq: Seq) -> bool {
        let began = self.now();
        if !self.sim.rules.has(Rule::WaitForAcks) {
            return true;
        }
        loop {
            let Some(acks) = self.ask_acks(seq).await else { return false };
            if !acks.is_there {
                return false;
            }
            if acks.missing.is_empty() && self.is_settled(began, acks.known_ms) {
                return true;
            }
            if self.now() > began + (LEASE_MS + DRIFT_MS) * 2 {
                return false;
            }
            let pause = if acks.missing.is_empty() { 20 } else { 2 };
            self.sim.exec.sleep(pause * MS).await;
        }
    }

    /// `RedisLog::acknowledged`; whether nothing was missing.
    pub async fn acknowledged(&self, seq: Seq, limit: Micros) -> bool {
        let until = self.sim.exec.now() + limit;
        let began = self.now();
        let mut pause = MS;
        while self.sim.exec.now() < until {
            if let Some(acks) = self.ask_acks(seq).await {
                let is_complete = !self.sim.rules.has(Rule::GapsAreLosses)
                    || self.is_settled(began, acks.known_ms);
                if acks.missing.is_empty() && acks.live > 0 && is_complete {
                    return true;
                }
            }
            self.sim.exec.sleep(pause).await;
            pause = (pause * 2).min(16 * MS);
        }
        false
    }

    /// `RedisLog::seen`.
    pub async fn seen(&self) -> Seq {
        match self.run(|redis, _| redis.last()).await {
            Some(last) => last.max(self.mirror.applied()),
            None => self.server_now(),
        }
    }

    /// `RedisLog::server_now_micros`.
    pub fn server_now(&self) -> Seq {
        const MARGIN: Micros = 20 * MS;
        if self.server_offset.get() == 0 {
            return self.sim.redis.borrow().clock(self.sim.exec.now()) + MARGIN;
        }
        let now = self.now();
        let drift = (now - self.heard_at.get()) * MS / 10;
        let heard = self.heard_last.get().max(self.mirror.applied());
        (self.server_offset.get() + now * MS).max(heard) + MARGIN + drift
    }
}
