//! Listeners to which the pod's own Envoy sends requests.
//!
//! Envoy's route says in header fields where a request goes and who its caller is. This module is
//! the only one that reads, checks and removes these fields ([`fields`]); what of them is believed
//! is decided in `arrive`. Envoy's health checks of a listener are told apart in `health`. How
//! Envoy is configured is the part of the root package's `istio`.

mod arrive;
mod fields;
mod health;

pub use arrive::MeshSettings;
pub(crate) use arrive::{Arrived, arrive};
pub(crate) use fields::{is_ours, mark};
pub(crate) use health::is_health_check;
