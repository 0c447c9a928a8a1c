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
        0 | 1 => stop(sim, process),
        2 | 3 => crash(sim, process),
        4 | 5 | 12 | 13 => stall(sim, process),
        6 => cut(sim, process),
        7 | 8 => flush(sim),
        9 => fail_over(sim, true).await,
        10 | 11 => fail_over(sim, false).await,
        _ => step_clock(sim),
    }
}

fn stop(sim: &Sim, process: usize) {
    let time = sim.below(900 * MS);
    sim.note(|| format!("FAULT    pod{process} is stopped for {} ms", time / MS));
    sim.exec.stop(process, sim.exec.now() + time);
}

fn crash(sim: &Sim, process: usize) {
    let pod = Rc::clone(&sim.pods.borrow()[process]);
    if !pod.alive.replace(false) {
        return;
    }
    let time = sim.below(500 * MS);
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
fn stall(sim: &Sim, process: usize) {
    for is_reading in [false, true] {
        let time = if sim.percent(20) { 0 } else { sim.below(1000 * MS) };
        let what = if is_reading { "follow the log" } else { "reach the server" };
        sim.note(|| format!("FAULT    pod{process} cannot {what} for {} ms", time / MS));
        sim.stall(process, is_reading, sim.exec.now() + time);
    }
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

fn flush(sim: &Sim) {
    let with_tier = sim.percent(50);
    sim.note(|| format!("FAULT    FLUSHALL, tier too: {with_tier}"));
    sim.redis.borrow_mut().flush();
    if with_tier {
        sim.tier.borrow_mut().clear();
    }
}

async fn fail_over(sim: &Sim, is_empty: bool) {
    let lost = sim.below(16) as usize;
    sim.redis.borrow_mut().is_up = false;
    let conns: Vec<Rc<Conn>> = sim.conns.borrow().clone();
    for conn in conns {
        lose(sim, conn, sim.percent(60));
    }
    let time = 50 * MS + sim.below(300 * MS);
    sim.note(|| {
        format!("FAULT    the server dies for {} ms; lost {lost}, empty {is_empty}", time / MS)
    });
    sim.exec.sleep(time).await;
    let mut redis = sim.redis.borrow_mut();
    if is_empty {
        redis.flush();
        redis.server += 1;
    } else {
        redis.fail_over(lost);
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
