//! Serving an HTTP API of this process: what every such API has in common.
//!
//! An API is an [`axum::Router`]. [`bind`] takes its port, [`with_layers`] puts the limits and the
//! tracing around its routes, and [`spawn`] serves it. The admin port uses this today; the cache
//! API will, so that both have the same limits.
//!
//! Nothing here knows a route or the state behind it. The data path does not use this module: it
//! needs trailers, upgrades and interim responses, and stays on hyper.

mod layers;
mod serve;

pub use layers::{RequestLimits, with_layers};
pub use serve::{bind, spawn};
