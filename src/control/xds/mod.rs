//! Policy from istiod, as extension configuration (ECDS) resources of three fixed names, over the
//! aggregated discovery service.
//!
//! The client has a connection to istiod of its own, beside the one of the pod's Envoy: the socket of
//! pilot-agent allows one stream, and a second one would end Envoy's. Traffic never depends on the
//! client: without istiod the policy in force stays, and after a start the one of the last run is used.

mod address;
mod apply;
mod backoff;
mod client;
mod decode;
mod error;
mod node;
mod proto;
mod settings;
mod state_file;
mod status;
mod values;

pub use address::XdsAddress;
pub use client::Client;
pub use decode::POLICY_TYPE;
pub use error::XdsError;
pub use node::{NodeIdentity, parse_labels};
pub use settings::XdsSettings;
pub use status::{Failure, Nack, XdsResult, XdsStatus, XdsView};
