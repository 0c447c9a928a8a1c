//! What the integration tests stand on: a scriptable origin, the real binary as a child process,
//! clients that show every byte, Redis servers, and a control plane that behaves as istiod.
//!
//! Nothing here sleeps to get an order right. An origin holds a response at a [`Gate`] until the
//! test opens it, and a test waits for a request to arrive by [`Origin::arrived`]. What only one
//! target needs is kept beside that target.

// Set-up that fails is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binary;
mod client;
pub mod control_plane;
mod gate;
mod h2;
mod machine;
mod metrics;
mod origin;
mod origin_conn;
mod proxy;
pub mod redis;
mod response;
mod script;
mod wire;

pub use binary::{binary, outrigger};
pub use client::{Client, Target, fetch, get};
pub use gate::{Gate, PATIENCE, eventually, within};
pub use h2::{ChannelBody, H2Client, H2Origin, H2Response, H2Seen, fields, read, read_until};
pub use machine::{
    free_addr, free_port, has_stopped, installed, own_address, resident_bytes, send_signal,
    test_cache, tool,
};
pub use metrics::{metric, waiting};
pub use origin::{Origin, Request};
pub use proxy::{Exit, Proxy, Setup};
pub use response::{CacheStatus, End, Response};
pub use script::{Reply, Script, Step, chunk, head, last_chunk};
pub use wire::{Chunked, Head, Wire};
