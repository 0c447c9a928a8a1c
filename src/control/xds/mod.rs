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
mod kept;
mod node;
mod proto;
mod status;
mod values;

use std::path::PathBuf;

pub use address::XdsAddress;
pub use client::Client;
pub use decode::POLICY_TYPE;
pub use node::{Identity, parse_labels};
pub use status::{Failure, Nack, XdsResult, XdsStatus, XdsView};

/// How istiod is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsSettings {
    /// Where it is.
    pub address: XdsAddress,
    /// The name that its certificate must carry; `None` for the host of the address.
    pub server_name: Option<String>,
    /// The service account's token.
    pub token_file: PathBuf,
    /// Whom to trust.
    pub ca_file: PathBuf,
    /// Who this pod is.
    pub identity: Identity,
    /// Folder for the last good policy; `None` does not keep it.
    pub state_dir: Option<PathBuf>,
}

/// Why a connection to istiod failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum XdsError {
    /// It cannot be reached.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The token or the certificates cannot be used.
    #[error("{}: {reason}; mount the projected token (audience istio-ca) and istio-ca-root-cert, or set policy.xds.tokenFile and caFile", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The labels of the pod cannot be read.
    #[error("{}: {reason}; mount the pod's labels from the downward API, or set OUTRIGGER_POD_LABELS", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// istiod does not accept who we are.
    #[error(
        "istiod refuses this identity: {reason}; check that POD_NAMESPACE is the namespace of the service account, and the token's audience istio-ca"
    )]
    Denied {
        /// What it says.
        reason: String,
    },
    /// istiod accepts connections and says nothing.
    #[error("istiod did not answer within {seconds} s")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// The stream ended with an error.
    #[error("the stream ended: {code:?}: {reason}")]
    Status {
        /// gRPC status.
        code: tonic::Code,
        /// What was said.
        reason: String,
    },
    /// The stream ended.
    #[error("the stream ended")]
    Ended,
}
