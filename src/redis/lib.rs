//! Connections to Redis: where it is, with which credentials, and whether it can be used now.
//!
//! One place for all topologies: one server, several with keys spread over them, a master that
//! Sentinel watches, a Cluster. A [`Target`] knows how to reach one of them, a [`Link`] keeps one
//! multiplexed connection to it alive and answers "none" at once while there is none, and a
//! [`Health`] with its breaker says whether a target should be asked at all.
//!
//! What is stored in Redis is the matter of `outrigger-store` and `outrigger-coherence`: nothing
//! here knows a key or a value.

pub mod breaker;
pub mod conn;
mod connect;
pub mod error;
pub mod health;
pub mod link;
pub mod location;
pub mod ring;
mod sentinel;
pub mod settings;
pub mod target;

pub use conn::Conn;
pub use error::ConnectError;
pub use health::{Health, HealthSettings};
pub use link::Link;
pub use location::{Location, LocationError, Server, Topology};
pub use ring::Ring;
pub use settings::{ConnectSettings, TlsFiles};
pub use target::Target;

/// The client library, for commands and values.
pub use redis as client;
