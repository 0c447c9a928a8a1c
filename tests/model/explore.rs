//! Running a story under many schedules, and what the stories are told with.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};

/// Preemptions at which a bug of few steps shows; most bugs need fewer.
const PCT_DEPTH: usize = 3;

/// Runs a story under so many random schedules, and as many again with few preemptions each, at
/// places where pure chance seldom puts them.
pub(crate) fn explore(schedules: usize, story: impl Fn() + Copy + Send + Sync + 'static) {
    if let Ok(schedule) = env::var("OUTRIGGER_MODEL_REPLAY") {
        return shuttle::replay(story, &schedule);
    }
    let seed = number("OUTRIGGER_MODEL_SEED", 1);
    let schedules = schedules * number("OUTRIGGER_MODEL_SCHEDULES", 1) as usize;
    let random = RandomScheduler::new_from_seed(seed, schedules);
    Runner::new(random, Config::new()).run(story);
    let preempting = PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules);
    Runner::new(preempting, Config::new()).run(story);
}

fn number(name: &str, otherwise: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

/// A choice from 0 to below `n`, part of the schedule.
pub(crate) fn choose(n: usize) -> usize {
    thread_rng().gen_range(0..n)
}

/// Runs threads to their ends.
pub(crate) fn together(n: usize, thread: impl Fn(usize) + Clone + Send + 'static) {
    let spawn = |at| {
        let thread = thread.clone();
        thread::spawn(move || thread(at))
    };
    let all: Vec<JoinHandle<()>> = (0..n).map(spawn).collect();
    all.into_iter().for_each(|one| one.join().expect("the thread ends well"));
}

/// A number that only the check knows.
#[derive(Debug, Default)]
pub(crate) struct Ghost(AtomicUsize);

impl Ghost {
    pub(crate) fn add(&self, n: usize) -> usize {
        self.0.fetch_add(n, Ordering::Relaxed) + n
    }

    pub(crate) fn take(&self, n: usize) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
