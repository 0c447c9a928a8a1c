//! Istio's objects for a workload: those that send its traffic through Outrigger, and those that carry
//! policy.
//!
//! The objects are texts with placeholders and not serialised structs, so that comments stay in what
//! is printed. Each value is checked before it is put in. Routes and clusters are separate objects:
//! deleting both at once would fail requests, since Envoy removes a cluster at once and drains the
//! listener that still names it for a while.

mod policy;
mod render;
mod values;

pub use policy::{PolicyObject, PolicyScope, embedded_policies, render_policy};
pub use render::{AppProtocol, Inbound, OtherPort, Outbound, Variant, Workload};
