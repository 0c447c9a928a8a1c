//! What the integration tests stand on: a scriptable origin, the real binary
//! as a child process, and clients that show every byte.
//!
//! Nothing here sleeps to get an order right. An origin holds a response at a
//! [`Gate`] until the test opens it, and a test waits for a request to arrive
//! by [`Origin::arrived`].

// Several test targets include this module, and none of them uses all of it.
#![allow(dead_code, unused_imports)]

mod client;
mod gate;
mod h2;
mod origin;
mod origin_conn;
mod proxy;
pub mod redis;
mod response;
mod script;
mod wire;

pub use client::{Client, Target, fetch, get, get_with};
pub use gate::{Gate, PATIENCE, eventually, within};
pub use h2::{ChannelBody, H2Client, H2Origin, H2Response, H2Seen, fields, read, read_until};
pub use origin::{Origin, Request};
pub use proxy::{Exit, Proxy, Setup, free_addr, outrigger, own_address};
pub use response::{CacheStatus, End, Response};
pub use script::{Reply, Script, chunk, head, last_chunk};
pub use wire::{Head, Wire};
