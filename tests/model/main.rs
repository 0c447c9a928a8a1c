//! The concurrent state machines of the guard and of the coalescer, under a scheduler that tries
//! out interleavings.
//!
//! Their very sources are compiled here a second time, against the primitives of `shuttle` in
//! `sync` in place of the real ones: every lock and every wake-up is a point at which another thread may
//! go on, and a thread that waits for ever is reported as a deadlock. Schedules and choices are
//! random with a fixed seed, `OUTRIGGER_MODEL_SEED`; `OUTRIGGER_MODEL_SCHEDULES` multiplies their
//! number. A failure prints its schedule, and `OUTRIGGER_MODEL_REPLAY` runs that one alone.
//!
//! What a check knows beside the machine is in `Ghost`s: plain std atomics, at which no other
//! thread goes on.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The sources, under the paths that they know each other by. No check uses all of them.
#[allow(dead_code)]
#[path = "../../src/guard/breaker.rs"]
mod breaker;
mod coalesce;
mod error;
#[allow(dead_code)]
#[path = "../../src/guard/gradient.rs"]
mod gradient;
#[allow(dead_code)]
#[path = "../../src/guard/limiter.rs"]
mod limiter;
#[allow(dead_code)]
#[path = "../../src/guard/misses.rs"]
mod misses;
#[allow(dead_code)]
#[path = "../../src/guard/retry.rs"]
mod retry;
#[allow(dead_code)]
#[path = "../../src/guard/slots.rs"]
mod slots;
mod sync;
#[allow(dead_code)]
#[path = "../../src/guard/transition.rs"]
mod transition;
#[allow(dead_code)]
#[path = "../../src/guard/window.rs"]
mod window;

mod checks;
mod explore;
