//! The protocol of the shared log, simulated.

mod check;
mod client;
mod exec;
mod faults;
mod linear;
mod net;
mod ops;
mod pod;
mod redis;
mod rules;
mod shared;
mod stories;
mod tasks;
mod world;

use std::collections::BTreeMap;
use std::rc::Rc;

use exec::{MS, Micros};
use ops::{Answer, Ask};
use pod::{HOLD_MS, Pod};
use rules::Rules;
use world::{LEVELS, Sim, World};

/// How a schedule ended.
struct Outcome {
    violation: Option<String>,
    lines: Vec<String>,
    counts: std::collections::HashMap<&'static str, usize>,
}

fn simulate(seed: u64, rules: Rules, traced: bool) -> Outcome {
    let sim = World::new(seed, rules, traced);
    sim.note(|| format!("{:?}", sim.config));
    for process in 0..sim.config.pods {
        let pod = Pod::start(&sim, sim.exec.life(process));
        sim.pods.borrow_mut().push(pod);
    }
    sim.exec.run_until(300 * MS, || false);
    begin(&sim);
    let is_over = || sim.busy.get() == 0 || sim.checks.has_failed();
    sim.exec.run_until(sim.exec.now() + 60_000 * MS, is_over);
    sim.note(|| "everything is healed".to_owned());
    if sim.busy.get() != 0 {
        sim.checks.fail(&sim, "somebody waits for ever".to_owned());
    }
    settle(&sim);
    sim.checks.strong(&sim);
    let outcome = Outcome {
        violation: sim.checks.violation(),
        lines: sim.lines(),
        counts: sim.checks.counts(),
    };
    sim.clear();
    outcome
}

/// Lets clients and faults loose, or tells a story.
fn begin(sim: &Sim) {
    if let Some(story) = sim.config.story {
        sim.busy.set(1);
        return sim.exec.spawn(None, stories::tell(Rc::clone(sim), story));
    }
    for number in 0..sim.config.clients {
        sim.exec.spawn(None, client::run(Rc::clone(sim), number));
    }
    sim.exec.spawn(None, faults::run(Rc::clone(sim), sim.config.horizon()));
    sim.busy.set(sim.config.clients + 1);
}

/// Why the pods do not agree yet.
fn disagreement(sim: &Sim) -> Option<String> {
    let last = sim.redis.borrow().last();
    for pod in sim.pods.borrow().iter() {
        let (applied, holds) = (pod.mirror.applied(), pod.mirror.holds());
        let queued = pod.outbox.borrow().len();
        if sim.exec.is_stopped(pod.life.process) || applied != last || holds > 0 || queued > 0 {
            let name = &pod.name;
            return Some(format!(
                "{name} has applied {applied} of {last}, holds {holds}, queues {queued}"
            ));
        }
    }
    None
}

/// Waits for quiet, and looks whether all pods tell the truth.
fn settle(sim: &Sim) {
    let end = sim.exec.now() + (HOLD_MS * 2 + 6000) * MS;
    // Slow writes to the tier land, too.
    sim.exec.run_until(sim.exec.now() + 1500 * MS, || sim.checks.has_failed());
    while !sim.checks.has_failed() {
        match disagreement(sim) {
            None => break,
            Some(why) if sim.exec.now() > end => sim.checks.fail(sim, why),
            Some(_) => {}
        }
        sim.exec.run_until(sim.exec.now() + 250 * MS, || sim.checks.has_failed());
    }
    if sim.checks.has_failed() {
        return;
    }
    sim.busy.set(1);
    let asked = Rc::clone(sim);
    sim.exec.spawn(None, async move {
        read_all(&asked).await;
        asked.busy.set(0);
    });
    let is_over = || sim.busy.get() == 0 || sim.checks.has_failed();
    sim.exec.run_until(sim.exec.now() + 60_000 * MS, is_over);
}

async fn read_all(sim: &Sim) {
    for process in 0..sim.config.pods {
        for key in 0..LEVELS.len() {
            let answer = client::ask(sim, process, Ask::Read { key, token: 0 }).await;
            let Some(Answer::Found { value, from, .. }) = answer else { continue };
            let truth = sim.origin.borrow()[key];
            if value != truth && !sim.checks.is_forgotten(key) {
                let what = format!(
                    "pod{process} serves k{key} = {value} from {from} for ever, but it is {truth}"
                );
                sim.checks.fail(sim, what);
            }
        }
    }
}

#[test]
fn explore() {
    let mut rules = if std::env::var("SIM_ALL").is_ok() { Rules::default() } else { Rules::code() };
    if let Ok(name) = std::env::var("SIM_FIX") {
        rules = rules::PROPOSED
            .iter()
            .filter(|rule| !name.split(',').any(|n| n == format!("{rule:?}")))
            .fold(Rules::default(), |rules, rule| rules.without(*rule));
    }
    if let Ok(name) = std::env::var("SIM_BREAK") {
        for name in name.split(',') {
            let rule = rules::ALL.iter().find(|rule| format!("{rule:?}") == name).unwrap();
            rules = rules.without(*rule);
        }
    }
    let count: u64 = std::env::var("OUTRIGGER_SIM_SCHEDULES").map_or(1000, |t| t.parse().unwrap());
    if let Ok(seed) = std::env::var("OUTRIGGER_SIM_SEED") {
        let outcome = simulate(seed.parse().unwrap(), rules, true);
        println!("{}", outcome.lines.join("\n"));
        println!("{:?}", outcome.violation);
        return;
    }
    let began = std::time::Instant::now();
    let mut kinds: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..count {
        let outcome = simulate(seed, rules, false);
        for (what, n) in outcome.counts {
            *counts.entry(what).or_default() += n;
        }
        if let Some(why) = outcome.violation {
            let kind: String = why.chars().filter(|c| c.is_ascii_alphabetic()).take(40).collect();
            kinds.entry(kind).or_default().push((seed, why));
        }
    }
    for (kind, list) in &kinds {
        println!("{kind}: {}", list.len());
        for (seed, why) in list.iter().take(6) {
            println!("   {seed}: {why}");
        }
    }
    println!("{counts:?} {:?}", began.elapsed());
}

#[allow(unused)]
const UNUSED: Micros = 0;
