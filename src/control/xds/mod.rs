//! Policy from istiod, as extension configuration (ECDS) resources of three fixed names, over the
//! aggregated discovery service.
//!
//! The client is one of its own beside the pod's Envoy: pilot-agent's socket allows one stream, and
//! a second one would cut Envoy's. Traffic never depends on it: without istiod the policy stays
//! what it is, and at a start what it was.

mod address;
mod apply;
mod backoff;
mod client;
mod decode;
mod error;
mod kept;
mod node;
mod proto;
mod settings;
mod status;
mod values;

pub use address::XdsAddress;
pub use client::Client;
pub use decode::POLICY_TYPE;
pub use error::XdsError;
pub use node::{NodeIdentity, parse_labels};
pub use settings::XdsSettings;
pub use status::{Failure, Nack, XdsResult, XdsStatus, XdsView};
