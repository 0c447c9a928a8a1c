//! Several pods on one Redis: what the shared purge log promises, also while pods stand still, die
//! and lose Redis.
//!
//! The load tests draw from a fixed seed; a failed one prints it, and `COHERENCE_SEED` sets
//! another.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acknowledge;
mod catchup;
mod causal;
mod cli;
mod cluster;
mod effects;
mod eventual;
mod hold;
mod late;
mod linear;
mod load;
mod policies;
mod purges;
mod register;
mod rng;
mod storm;
mod strong;

use outrigger_test_support as support;
