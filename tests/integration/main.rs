//! The real binary, on loopback, in front of a scriptable origin.
//!
//! One test per behaviour, named after it. What the tests stand on is in
//! `../support`.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod auth;
mod basics;
mod causes;
mod coalescing;
mod conditional;
mod cookies;
mod failures;
mod framing;
mod guard;
mod headers;
mod hostile;
mod http2;
mod interim;
mod invalidation;
mod laggards;
mod lifecycle;
mod limits;
mod listeners;
mod mesh;
mod policy;
mod purge;
mod ranges;
mod reload;
mod sharing;
mod stale;
mod startup;
mod storing;
mod streaming;
mod supersede;
mod trailers;
mod unread;
mod upgrade;
mod uri;
mod vary;

use outrigger_test_support as support;
