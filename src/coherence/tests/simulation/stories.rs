//! Coincidences that chance alone brings about too rarely: each story sets the stage, and leaves the
//! exact times to chance.

use std::rc::Rc;

use crate::client::Session;
use crate::exec::{MS, Micros};
use crate::faults::{crash, fail_over, flush, stall, stop};
use crate::world::{LEVELS, Sim};

/// The key of each level.
const EVENTUAL: usize = 0;
const CAUSAL: usize = 1;
const STRONG: usize = 2;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A heartbeat that was sent before the end of a lease arrives after it.
    LateBeat,
    /// The log is lost while a write is on its way, and a pod comes that never saw its hold.
    LostHold,
    /// A fail-over loses a purge that was answered.
    LostPurge,
    /// The list of pods is lost, and a pod on it is out of reach while its lease still runs.
    LostList,
    /// A pod that is cut off is asked to write.
    CutOff,
    /// A pod starts on an empty log, beside a tier that is not empty.
    EmptyLog,
    /// A session goes from one pod that lags behind the log to another.
    Lagging,
}

/// All of them.
pub const ALL: [Story; 7] = [
    Story::LateBeat,
    Story::LostHold,
    Story::LostPurge,
    Story::LostList,
    Story::CutOff,
    Story::EmptyLog,
    Story::Lagging,
];

/// Tells a story.
pub async fn tell(sim: Sim, story: Story) {
    match story {
        Story::LateBeat => late_beat(&sim).await,
        Story::LostHold => lost_hold(&sim).await,
        Story::LostPurge => lost_purge(&sim).await,
        Story::LostList => lost_list(&sim).await,
        Story::CutOff => cut_off(&sim).await,
        Story::EmptyLog => empty_log(&sim).await,
        Story::Lagging => lagging(&sim).await,
    }
    sim.busy.set(sim.busy.get() - 1);
}

fn session(name: &str) -> Session {
    Session::new(format!("{name:7}"))
}

/// Fills the memory of a pod.
async fn fill(sim: &Sim, process: usize, key: usize) {
    let mut first = session("first");
    for _ in 0..3 {
        first.read(sim, process, key).await;
        sim.exec.sleep(20 * MS).await;
    }
}

/// Writes on its own.
fn writes(sim: &Sim, process: usize, key: usize, times: usize) {
    let sim = Rc::clone(sim);
    sim.busy.set(sim.busy.get() + 1);
    sim.clone().exec.spawn(None, async move {
        let mut writer = session("writer");
        for _ in 0..times {
            writer.write(&sim, process, key).await;
            sim.exec.sleep(sim.below(30 * MS)).await;
        }
        sim.busy.set(sim.busy.get() - 1);
    });
}

/// Purges everywhere, on its own.
fn purges(sim: &Sim, process: usize, key: usize) {
    let sim = Rc::clone(sim);
    sim.busy.set(sim.busy.get() + 1);
    sim.clone().exec.spawn(None, async move {
        session("purger").purge(&sim, process, key).await;
        sim.busy.set(sim.busy.get() - 1);
    });
}

/// One session reads through several pods, one after the other.
async fn reads(sim: &Sim, processes: &[usize], key: usize, pause: Micros, time: Micros) {
    let (mut reader, end) = (session("reader"), sim.exec.now() + time);
    while sim.exec.now() < end {
        for process in processes {
            reader.read(sim, *process, key).await;
            sim.exec.sleep(sim.below(pause)).await;
        }
    }
}

async fn late_beat(sim: &Sim) {
    fill(sim, 1, STRONG).await;
    let time = 340 * MS + sim.below(300 * MS);
    stall(sim, 1, false, time);
    stall(sim, 1, true, time + 200 * MS);
    writes(sim, 0, STRONG, 1);
    sim.exec.sleep(250 * MS + sim.below(120 * MS)).await;
    stop(sim, 1, sim.below(300 * MS));
    reads(sim, &[1], STRONG, 6 * MS, 700 * MS).await;
}

async fn lost_hold(sim: &Sim) {
    let key = if sim.percent(50) { STRONG } else { CAUSAL };
    sim.exec.sleep(200 * MS).await;
    fill(sim, 1, key).await;
    if sim.percent(50) {
        stall(sim, 1, true, sim.below(100 * MS));
    }
    writes(sim, 0, key, 1);
    sim.exec.sleep(sim.below(60 * MS)).await;
    flush(sim, true);
    if sim.percent(80) {
        crash(sim, 1, sim.below(60 * MS));
    }
    if sim.percent(30) {
        // It lags again when it hears of the repeated hold.
        sim.exec.sleep(60 * MS + sim.below(200 * MS)).await;
        stall(sim, 1, true, 300 * MS + sim.below(800 * MS));
    }
    reads(sim, &[2, 1], key, 10 * MS, 1800 * MS).await;
}

async fn lost_purge(sim: &Sim) {
    let key = sim.below(LEVELS.len() as u64) as usize;
    fill(sim, 1, key).await;
    let lost = 1 + sim.below(6) as usize;
    stall(sim, 1, true, sim.below(100 * MS));
    stall(sim, 0, true, if sim.percent(50) { 0 } else { sim.below(100 * MS) });
    let mut writer = session("writer");
    writer.write(sim, 0, key).await;
    if sim.percent(30) {
        crash(sim, 0, sim.below(300 * MS));
    }
    fail_over(sim, Some(lost), 60).await;
    for _ in 0..100 {
        writer.read(sim, 1, key).await;
        sim.exec.sleep(sim.below(6 * MS)).await;
    }
}

async fn lost_list(sim: &Sim) {
    // Old enough to settle at once, were it not for the flush.
    sim.exec.sleep(300 * MS).await;
    fill(sim, 1, STRONG).await;
    let writes_first = sim.percent(50);
    if writes_first {
        stall(sim, 1, true, 900 * MS);
        writes(sim, 0, STRONG, 1);
    }
    sim.exec.sleep(sim.below(100 * MS)).await;
    stall(sim, 1, false, 900 * MS);
    stall(sim, 1, true, 900 * MS);
    flush(sim, false);
    match writes_first {
        false if sim.percent(50) => purges(sim, 0, STRONG),
        false => writes(sim, 0, STRONG, 1),
        true => {}
    }
    reads(sim, &[1], STRONG, 6 * MS, 600 * MS).await;
}

async fn cut_off(sim: &Sim) {
    let key = sim.below(LEVELS.len() as u64) as usize;
    sim.exec.sleep(200 * MS).await;
    fill(sim, 1, key).await;
    stall(sim, 0, false, 600 * MS);
    stall(sim, 0, true, sim.below(600 * MS));
    writes(sim, 0, key, 2);
    reads(sim, &[0, 1], key, 6 * MS, 500 * MS).await;
}

async fn empty_log(sim: &Sim) {
    fill(sim, 0, EVENTUAL).await;
    let mut writer = session("writer");
    writer.write(sim, 0, EVENTUAL).await;
    sim.exec.sleep(20 * MS).await;
    crash(sim, 1, 0);
    flush(sim, false);
    sim.exec.sleep(sim.below(8 * MS)).await;
    reads(sim, &[1], EVENTUAL, MS, 20 * MS).await;
}

async fn lagging(sim: &Sim) {
    fill(sim, 1, CAUSAL).await;
    stall(sim, 1, true, 400 * MS);
    stall(sim, 2, true, 400 * MS);
    writes(sim, 0, CAUSAL, 1);
    sim.exec.sleep(sim.below(40 * MS)).await;
    let mut reader = session("reader");
    reader.read(sim, 2, CAUSAL).await;
    reader.read(sim, 1, CAUSAL).await;
}
