//! Connections to Redis: where it is, who is allowed in, and whether it can be used right now.
//!
//! One place for all topologies: one server, several with keys spread over them, a master that
//! Sentinel watches, a Cluster. A [`Target`] knows how to reach one of them, a [`Link`] keeps one
//! multiplexed connection to it alive and answers "none" at once while there is none, and a
//! [`Health`] with its breaker tells everybody when asking is not worth while.
//!
//! What is stored in Redis, and what purges mean, is known to `outrigger-store` and
//! `outrigger-coherence`; nothing here knows a key.

pub mod breaker;
pub mod connect;
pub mod error;
pub mod health;
pub mod link;
pub mod location;
pub mod ring;
mod sentinel;

pub use connect::{Conn, ConnectSettings, Target, Timeouts, TlsFiles};
pub use error::ConnectError;
pub use health::{Health, HealthSettings};
pub use link::Link;
pub use location::{Location, Server, Topology};
pub use ring::Ring;

/// The client library, for commands and values.
pub use redis as client;
