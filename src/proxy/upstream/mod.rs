//! The upstream: endpoints, connections, and the one place through which every request to it goes.
//!
//! Connections are opened by `pingora-core`'s transport connector (TCP, TLS, Unix sockets, limits
//! per phase); HTTP is spoken by hyper's client connections on top of them, because they carry
//! trailers, 1xx and upgrades, which pingora's HTTP/1 session drops or handles apart. Idle
//! connections are kept per worker: measured, sharing them between runtimes costs 20 % of the CPU
//! of a pass-through.

mod attempt;
mod call;
mod connect;
mod deadlines;
mod ejection;
mod endpoints;
mod error;
mod pool;
mod response;
mod retry;
mod settings;

pub(crate) use call::{Call, Interim, InterimSender, Named, Upstream};
pub(crate) use connect::Connector;
pub(crate) use ejection::Ejections;
pub use endpoints::EndpointState;
pub(crate) use endpoints::Endpoints;
pub use error::{Overload, UpstreamError};
pub(crate) use response::{UpstreamBody, UpstreamResponse};
pub use settings::{
    Address, Balance, EjectionSettings, HealthCheckSettings, HostHeader, Protocol, Timeouts,
    TlsSettings, UpstreamSettings,
};
