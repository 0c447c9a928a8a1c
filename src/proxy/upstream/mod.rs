//! The upstream: endpoints, connections, and the one place through which every request to it goes.
//!
//! Connections are opened by `pingora-core`'s transport connector (TCP, TLS, Unix sockets, limits
//! per phase); HTTP is spoken by hyper's client connections on top of them, because they carry
//! trailers, 1xx and upgrades, which pingora's HTTP/1 session drops or handles apart. Idle
//! connections are kept per worker: measured, sharing them between runtimes costs 20 % of the CPU
//! of a pass-through.

mod call;
mod connect;
mod endpoints;
mod error;
mod pool;
mod response;
mod settings;

pub(crate) use call::{Call, Interim, Upstream};
pub(crate) use connect::Connector;
pub use endpoints::EndpointState;
pub(crate) use endpoints::Endpoints;
pub use error::UpstreamError;
pub(crate) use response::{UpstreamBody, UpstreamResponse};
pub use settings::{
    Address, Balance, HealthCheckSettings, HostHeader, Protocol, Timeouts, TlsSettings,
    UpstreamSettings,
};
