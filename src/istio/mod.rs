//! Istio's objects for a workload: what sends its traffic through Outrigger, and what carries policy.
//!
//! The objects are texts with a few holes, so that what is printed keeps its comments and reads like
//! written by hand. Each value that goes into a hole is checked first. Routes and clusters are
//! objects of their own: deleting both at once would fail requests, since Envoy drops a cluster at
//! once and drains the listener that still names it for a while.

mod policy;
mod render;
mod values;

pub use policy::{PolicyObject, PolicyScope, embedded_policies, render_policy};
pub use render::{AppProtocol, Inbound, OtherPort, Outbound, Variant, Workload};
