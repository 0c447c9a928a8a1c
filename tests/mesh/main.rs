//! The mesh integration: a control plane that behaves as istiod, answers that
//! a real istiod gave, real Envoys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ads;
mod authentication;
mod client;
mod endings;
mod failing;
mod inbound;
mod outbound;
mod pod;
mod pods;
mod policies;
mod recipes;
mod replay;
mod requests;
mod sides;

use outrigger_test_support::{self as support, control_plane};
