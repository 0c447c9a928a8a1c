//! What goes wrong.

use std::rc::Rc;

use crate::exec::{MS, Micros};
use crate::net::Conn;
use crate::pod::Pod;
use crate::world::Sim;

/// Lets things go wrong during `time`.
pub async fn run(sim: Sim, time: Micros) {
    // Sometimes all at once, sometimes one after the other.
    let (first, spread) = (sim.below(time), if sim.percent(60) { time / 4 } else { time });
    let at = |_| (first + sim.below(spread)) % time;
    let mut at: Vec<Micros> = (0..sim.config.faults).map(at).collect();
    at.sort_unstable();
    let start = sim.exec.now();
    for at in at {
        sim.exec.sleep((start + at).saturating_sub(sim.exec.now())).await;
        one(&sim).await;
    }
    sim.busy.set(sim.busy.get() - 1);
}

async fn one(sim: &Sim) {
    let process = sim.below(sim.config.pods as u64) as usize;
    match sim.below(15) {
        0 | 1 => stop(sim, process, sim.below(900 * MS)),
        2 | 3 => crash(sim, process, sim.below(500 * MS)),
        4 | 5 | 12 | 13 => {
            stall(sim, process, false, sim.below(1000 * MS));
            stall(sim, process, true, sim.below(1000 * MS));
        }
        6 => cut(sim, process),
        7 | 8 => flush(sim, sim.percent(50)),
        9 => fail_over(sim, None, 60).await,
        10 | 11 => fail_over(sim, Some(sim.below(16) as usize), 60).await,
        _ => step_clock(sim),
    }
}

pub fn stop(sim: &Sim, process: usize, time: Micros) {
    sim.note(|| format!("FAULT    pod{process} is stopped for {} ms", time / MS));
    sim.exec.stop(process, sim.exec.now() + time);
}

pub fn crash(sim: &Sim, process: usize, time: Micros) {
    let pod = Rc::clone(&sim.pods.borrow()[process]);
    if !pod.alive.replace(false) {
        return;
    }
    sim.note(|| format!("FAULT    pod{process} dies, and starts again after {} ms", time / MS));
    sim.checks.died(&pod);
    let life = sim.exec.kill(process);
    sim.conns.borrow().iter().filter(|conn| conn.process == process).for_each(|conn| {
        conn.dead.set(true);
    });
    sim.exec.ring(&sim.answers);
    let sim = Rc::clone(sim);
    sim.busy.set(sim.busy.get() + 1);
    sim.clone().exec.spawn(None, async move {
        sim.exec.sleep(time).await;
        let pod = Pod::start(&sim, life);
        sim.pods.borrow_mut()[process] = pod;
        sim.note(|| format!("         pod{process} starts"));
        sim.busy.set(sim.busy.get() - 1);
    });
}

/// The two connections of a pod need not suffer alike.
pub fn stall(sim: &Sim, process: usize, is_reading: bool, time: Micros) {
    let what = if is_reading { "follow the log" } else { "reach the server" };
    sim.note(|| format!("FAULT    pod{process} cannot {what} for {} ms", time / MS));
    sim.stall(process, is_reading, sim.exec.now() + time);
}

fn cut(sim: &Sim, process: usize) {
    sim.note(|| format!("FAULT    connections of pod{process} are lost"));
    let conns: Vec<Rc<Conn>> = sim.conns.borrow().clone();
    for conn in conns.into_iter().filter(|conn| conn.process == process) {
        lose(sim, conn, sim.percent(50));
    }
}

/// Loses a connection. The client sees it end, or is told that the server is another now.
fn lose(sim: &Sim, conn: Rc<Conn>, is_seen: bool) {
    conn.dead.set(true);
    let time = if sim.percent(50) { 0 } else { sim.below(200 * MS) };
    let sim = Rc::clone(sim);
    sim.clone().exec.spawn(None, async move {
        sim.exec.sleep(time).await;
        if is_seen {
            conn.failed.set(true);
        }
        conn.left.set(true);
        sim.exec.ring(&conn.bell);
    });
}

pub fn flush(sim: &Sim, with_tier: bool) {
    sim.note(|| format!("FAULT    FLUSHALL, tier too: {with_tier}"));
    sim.redis.borrow_mut().flush();
    if with_tier {
        sim.tier.borrow_mut().clear();
    }
}

/// Another server takes over, without the last changes, or without anything.
pub async fn fail_over(sim: &Sim, lost: Option<usize>, seen_percent: u64) {
    sim.redis.borrow_mut().is_up = false;
    let conns: Vec<Rc<Conn>> = sim.conns.borrow().clone();
    for conn in conns {
        lose(sim, conn, sim.percent(seen_percent));
    }
    let time = 50 * MS + sim.below(300 * MS);
    sim.note(|| format!("FAULT    the server dies for {} ms, changes lost: {lost:?}", time / MS));
    sim.exec.sleep(time).await;
    let mut redis = sim.redis.borrow_mut();
    match lost {
        Some(lost) => redis.fail_over(lost),
        None => {
            redis.flush();
            redis.server += 1;
        }
    }
    redis.clock_ahead += 30 * 1000 - sim.below(60 * MS) as i64;
    redis.is_up = true;
    sim.note(|| "         another server is there".to_owned());
}

fn step_clock(sim: &Sim) {
    let back = sim.below(30 * MS) as i64;
    sim.note(|| format!("FAULT    the server's clock steps back by {} ms", back / 1000));
    sim.redis.borrow_mut().clock_ahead -= back;
}
