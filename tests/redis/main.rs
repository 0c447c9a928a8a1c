//! The Redis tier against real servers.
//!
//! Several Outrigger processes before one origin share a Redis that the test
//! starts, watches, and breaks. What the tests stand on is in `../support`.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;
mod envelope;
mod faults;
mod flight;
mod harness;
mod lifetimes;
mod load;
mod pods;
mod quota;
mod sealing;
mod sharing;
mod supersede;
mod topologies;
mod warm;

use outrigger_test_support as support;
