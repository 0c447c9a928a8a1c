//! Clients: sessions that read, write and purge through any pod, one request after the other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use outrigger_coherence::{Matcher, Seq};

use crate::exec::{MS, Micros};
use crate::linear::Op;
use crate::ops::{Answer, Ask, url};
use crate::world::{LEVELS, Level, Sim, short};

/// One session.
pub struct Session {
    name: String,
    token: Seq,
    /// The oldest version of each key that it may still be shown.
    floor: HashMap<usize, usize>,
}

/// Asks a pod, and waits for the answer or the end of the pod.
pub async fn ask(sim: &Sim, process: usize, ask: Ask) -> Option<Answer> {
    let pod = Rc::clone(&sim.pods.borrow()[process]);
    if !pod.alive.get() {
        return None;
    }
    let answer: Rc<RefCell<Option<Answer>>> = Rc::default();
    let (there, serving) = (Rc::clone(&answer), Rc::clone(&pod));
    sim.exec.spawn(Some(pod.life), async move {
        let sim = Rc::clone(&serving.sim);
        let found = serving.serve(ask).await;
        *there.borrow_mut() = Some(found);
        sim.exec.ring(&sim.answers);
    });
    let found = || match answer.borrow_mut().take() {
        Some(found) => Some(Some(found)),
        None => (!pod.alive.get()).then_some(None),
    };
    sim.exec.wait(&sim.answers, Micros::MAX, found).await.flatten()
}

/// Runs a session to its end.
pub async fn run(sim: Sim, number: usize) {
    let mut session = Session::new(format!("client{number}"));
    for _ in 0..sim.config.ops {
        sim.exec.sleep(think(&sim)).await;
        session.step(&sim).await;
    }
    sim.busy.set(sim.busy.get() - 1);
}

fn think(sim: &Sim) -> Micros {
    match sim.below(3) {
        0 => sim.below(3 * MS),
        1 => sim.below(10 * MS),
        _ => sim.below(sim.config.pause_ms * MS),
    }
}

impl Session {
    pub fn new(name: String) -> Self {
        Session { name, token: 0, floor: HashMap::new() }
    }

    pub async fn read(&mut self, sim: &Sim, process: usize, key: usize) {
        self.request(sim, process, key, Ask::Read { key, token: self.token }).await;
    }

    pub async fn write(&mut self, sim: &Sim, process: usize, key: usize) {
        let what = Ask::Write { key, value: sim.new_value(), token: self.token };
        self.request(sim, process, key, what).await;
    }

    pub async fn purge(&mut self, sim: &Sim, process: usize, key: usize) {
        let what = Ask::Purge { matcher: url(key), wait_all: true };
        self.request(sim, process, key, what).await;
    }

    async fn step(&mut self, sim: &Sim) {
        let process = sim.below(sim.config.pods as u64) as usize;
        let any = sim.below(LEVELS.len() as u64) as usize;
        let key = if sim.percent(80) { sim.config.focus } else { any };
        match sim.below(40) {
            0 => self.request(sim, process, key, purge_of(sim, key)).await,
            1..=6 => self.write(sim, process, key).await,
            _ => self.read(sim, process, key).await,
        }
    }

    async fn request(&mut self, sim: &Sim, process: usize, key: usize, what: Ask) {
        let from = sim.exec.stamp();
        sim.note(|| format!("{}  pod{process}  {what:?}", self.name));
        let answer = ask(sim, process, what.clone()).await;
        sim.note(|| format!("{}  pod{process}  is told {answer:?}", self.name));
        self.record(sim, key, &what, answer, from);
    }

    fn record(&mut self, sim: &Sim, key: usize, what: &Ask, answer: Option<Answer>, from: u64) {
        let until = if answer.is_some() { sim.exec.stamp() } else { u64::MAX };
        match (what, answer) {
            (Ask::Write { value, .. }, answer) => {
                if matches!(answer, Some(Answer::Refused)) {
                    return sim.checks.count("refused");
                }
                sim.checks.count("write");
                sim.checks.operation(Op { key, value: *value, is_write: true, from, until });
                if let Some(Answer::Written { token }) = answer {
                    self.token = self.token.max(token);
                    self.raise(sim, key, *value);
                }
            }
            (Ask::Read { .. }, Some(Answer::Found { value, token, from: tier })) => {
                sim.checks.count(tier);
                sim.checks.operation(Op { key, value, is_write: false, from, until });
                self.token = self.token.max(token);
                self.see(sim, key, value);
            }
            _ => {}
        }
    }

    fn raise(&mut self, sim: &Sim, key: usize, value: u64) {
        let floor = self.floor.entry(key).or_default();
        *floor = (*floor).max(sim.checks.version(value));
    }

    /// Read your writes, and monotonic reads.
    fn see(&mut self, sim: &Sim, key: usize, value: u64) {
        let (version, floor) = (sim.checks.version(value), self.floor.get(&key).copied());
        let is_older = floor.is_some_and(|floor| version < floor);
        if is_older && LEVELS[key] == Level::Causal {
            let (name, token) = (&self.name, short(self.token));
            let what = format!(
                "{name} with token {token} is shown k{key} = {value}, version {version}, after version {floor:?}"
            );
            sim.checks.breach(sim, what);
        }
        self.raise(sim, key, value);
    }
}

fn purge_of(sim: &Sim, key: usize) -> Ask {
    let matcher = match sim.below(4) {
        0 => url(key),
        1 => Matcher::Tag(format!("t{key}")),
        2 => Matcher::Prefix("http://h/".to_owned()),
        _ => Matcher::All,
    };
    Ask::Purge { matcher, wait_all: sim.percent(70) }
}
