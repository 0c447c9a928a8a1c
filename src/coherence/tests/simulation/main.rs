//! The protocol of the shared log in thousands of schedules, each of which a seed brings about
//! again: what a test with real processes shows once in a million times shows here in seconds.
//!
//! What decides is real: mirror, follower, holds, lease, entries. What surrounds it is modelled, line
//! by line but by hand: the server with its scripts, `RedisLog` with its heartbeat, outbox and
//! repeated holds, `State::absorb`, and what the proxy asks before it serves and stores; and besides
//! connections, the origin, the shared tier, and all that may happen to them. The model of a pod
//! keeps [`rules::Rule`]s, each of which the code has; a second test breaks each of them and sees
//! that it is needed.
//!
//! What is taken for granted:
//! - Clocks run alike within a few percent, and servers that take over from each other have clocks
//!   closer together than the time that takes.
//! - A server that was replaced does not answer any more.
//! - A write ends before its hold does, and takes effect before it is answered.
//! - A pod that dies takes its outbox along, and what it had forwarded without a hold: other pods may
//!   then serve what is older until it expires.
//!
//! What the protocol is known not to withstand: from where it comes about on, nothing is held
//! against a schedule but that somebody waits for ever (see [`weak`]).
//! - The log is lost, or trimmed, while a write is on its way whose pod is out of reach: cut off, not
//!   connected again yet, stopped or dead. Nobody can repeat its hold, and who has not heard of it
//!   begins to serve and store after one longest lease.
//! - Something is appended on a server that lacks the end of the log before the first heartbeat has
//!   made the log begin anew, which takes until the first pod is connected; or what that server has
//!   is from before the first heartbeat of all, and does not say who wrote it.
//!
//! What is not modelled: `trust_fail_over`; clients that go away in the middle of a write, and writes
//! of which the upstream said nothing, whose holds linger; holds of anything but a URL; an outbox or
//! a mirror that overflows; events that are not understood; pods that leave in good order; warm
//! starts and fetches on behalf of all pods.
//!
//! `OUTRIGGER_SIM_SCHEDULES` says how many, `OUTRIGGER_SIM_SEED` tells one event by event, and
//! `OUTRIGGER_SIM_WITHOUT` names rules, separated by commas, to do without.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod active;
mod check;
mod client;
mod exec;
mod faults;
mod linear;
mod net;
mod ops;
mod pod;
mod redis;
mod redis_log;
mod rules;
mod stories;
mod tasks;
mod weak;
mod world;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Mutex;

use exec::MS;
use ops::{Answer, Ask};
use pod::{HOLD_MS, Pod};
use rules::{Rule, Rules};
use world::{LEVELS, Sim, World};

/// Schedules of a run.
const SCHEDULES: u64 = 2000;
/// Schedules in which the breach of a rule must show.
const HUNT_MAX: usize = 600;

/// Seeds that show what has failed once: each fails without the rule that came of it.
const REGRESSIONS: &[(u64, &str)] = &[
    (15, "a pod that had found the log empty served what the shared tier had kept"),
    (219, "FLUSHALL before a wait for all: a pod whose lease still ran was not on the new list"),
    (300, "a fail-over lost a purge that was answered, and nobody who had applied it was left"),
    (
        378,
        "a heartbeat sent before a lease ended and answered long after renewed it without a break",
    ),
    (213, "FLUSHALL during a write: a pod that started then never heard of the hold"),
    (1221, "FLUSHALL during a write: a pod that started then served before it heard of the hold"),
];

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
    if sim.busy.get() != 0 && !sim.checks.has_failed() {
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
                sim.checks.breach(sim, what);
            }
        }
    }
}

/// The rules of this run: all, but for those that `OUTRIGGER_SIM_WITHOUT` names.
fn rules_of_run() -> Rules {
    let names = std::env::var("OUTRIGGER_SIM_WITHOUT").unwrap_or_default();
    let is_named = |rule: &Rule| names.split(',').any(|name| name == format!("{rule:?}"));
    let broken = rules::ALL.iter().map(|(rule, _, _)| rule).filter(|rule| is_named(rule));
    broken.fold(Rules::default(), |rules, rule| rules.without(*rule))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Does something with each number, on all processors.
fn in_parallel(numbers: impl Iterator<Item = u64> + Send, run: impl Fn(u64) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let numbers = Mutex::new(numbers);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = numbers.lock().unwrap().next();
                    let Some(next) = next else { return };
                    run(next);
                }
            });
        }
    });
}

#[test]
fn no_schedule_breaks_a_promise() {
    let rules = rules_of_run();
    if let Some(seed) = number("OUTRIGGER_SIM_SEED") {
        let outcome = simulate(seed, rules, true);
        println!("{}", outcome.lines.join("\n"));
        assert_eq!(outcome.violation, None);
        return;
    }
    let failed = Mutex::new(BTreeMap::new());
    let counts: Mutex<BTreeMap<&'static str, usize>> = Mutex::default();
    let known = REGRESSIONS.iter().map(|(seed, _)| *seed);
    let fresh = 0..number("OUTRIGGER_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    in_parallel(known.chain(fresh), |seed| {
        let outcome = simulate(seed, rules, false);
        if let Some(why) = outcome.violation {
            failed.lock().unwrap().insert(seed, why);
        }
        let mut counts = counts.lock().unwrap();
        for (what, times) in outcome.counts {
            *counts.entry(what).or_default() += times;
        }
    });
    let (failed, counts) = (failed.into_inner().unwrap(), counts.into_inner().unwrap());
    println!("{counts:?}");
    let Some((seed, why)) = failed.first_key_value() else {
        // Where nothing is ever served from a store, no promise is at stake.
        return assert!(counts["memory"] > counts["write"] && counts["tier"] > 0, "{counts:?}");
    };
    println!("{}", simulate(*seed, rules, true).lines.join("\n"));
    let seeds: Vec<u64> = failed.keys().copied().collect();
    panic!("schedules fail: {seeds:?}; OUTRIGGER_SIM_SEED={seed}: {why}");
}

#[test]
fn breaking_any_rule_shows() {
    let missed = Mutex::new(Vec::new());
    in_parallel(0..rules::ALL.len() as u64, |number| {
        let (rule, first, step) = rules::ALL[number as usize];
        let mut seeds = (first..).step_by(step).take(HUNT_MAX);
        let is_noticed =
            |seed: &u64| simulate(*seed, Rules::default().without(rule), false).violation.is_some();
        match seeds.find(is_noticed) {
            Some(seed) => println!("{rule:?}: {seed}"),
            None => missed.lock().unwrap().push(rule),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "nobody notices without {missed:?}");
}
