//! The upstream: endpoints, connections, and the one place through which every request to it goes.
//!
//! Connections are opened with tokio and rustls, and HTTP is spoken by hyper's client connections
//! on top of them, which carry trailers, 1xx and upgrades. Idle connections are kept per worker:
//! measured, sharing them between runtimes costs 20 % of the CPU of a pass-through. What failures
//! mean for later requests is decided by the guard.

mod address;
mod attempt;
mod balance;
mod call;
mod connect;
mod deadlines;
mod ejection;
mod endpoints;
mod health;
mod pool;
mod request;
mod response;
mod retry;
mod settings;
mod tls;

pub(crate) use call::Upstream;
pub(crate) use connect::Connector;
pub use endpoints::EndpointState;
pub(crate) use endpoints::Endpoints;
pub(crate) use request::{Destination, Interim, InterimSender, UpstreamRequest};
pub(crate) use response::{UpstreamBody, UpstreamResponse};
pub use settings::{
    Address, Balance, EjectionSettings, HealthCheckSettings, HostHeader, PoolSettings, Protocol,
    Timeouts, TlsSettings, UpstreamSettings,
};
