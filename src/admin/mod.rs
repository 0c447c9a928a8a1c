//! The admin port: health, metrics, what is in force, explanations, purging.
//!
//! It has no authentication and belongs on loopback, where `kubectl port-forward` reaches it. A
//! purge must be sent as JSON, so that no web page can send one through a browser. A second port may
//! offer health and metrics to other machines.
//!
//! Pages read the state that [`Admin`] holds, which the composition of the process hands in. Nothing
//! here knows how a process is configured or started.

mod body;
mod error;
mod explain;
mod explain_query;
pub mod gauges;
mod guard;
mod pages;
mod purge;
mod ready;
mod redis;
mod reply;
mod routes;
mod state;
pub mod xds;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::http_api::{self, RequestLimits};
pub use ready::{Readiness, Ready};
pub use state::{Admin, AdminScope};

/// The limits of a request. A purge may wait for acknowledgements for [`purge::WAIT_MAX`]; the rest
/// is for its place in the purge log.
const LIMITS: RequestLimits = RequestLimits {
    body_bytes_max: 64 * 1024,
    time_max: purge::WAIT_MAX.saturating_add(Duration::from_secs(5)),
};

/// Serves the pages of a scope on the current runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn spawn(admin: Arc<Admin>, listener: TcpListener, scope: AdminScope) -> io::Result<()> {
    let router = routes::router(admin, scope);
    http_api::spawn(listener, http_api::with_layers(router, LIMITS))
}
