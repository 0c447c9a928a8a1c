//! Why there is no stream from istiod: one enum for all that can go wrong between this process and
//! it. What is wrong in a policy that istiod sends is a diagnostic, and no error of the connection.

use std::path::PathBuf;

/// Why a connection to istiod failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum XdsError {
    /// It cannot be reached.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address of istiod.
        address: String,
        /// Why there is no connection.
        reason: String,
    },
    /// The token or the certificates cannot be used.
    #[error("{}: {reason}; mount the projected token (audience istio-ca) and istio-ca-root-cert, or set policy.xds.tokenFile and caFile", path.display())]
    Credential {
        /// The file with the token or the certificates.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The labels of the pod cannot be read.
    #[error("{}: {reason}; mount the pod's labels from the downward API, or set OUTRIGGER_POD_LABELS", path.display())]
    Labels {
        /// The file that the downward API writes.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// istiod does not accept the identity of this process.
    #[error(
        "istiod refuses this identity: {reason}; check that POD_NAMESPACE is the namespace of the service account, and the token's audience istio-ca"
    )]
    Denied {
        /// What istiod says about it.
        reason: String,
    },
    /// istiod accepts connections and sends no response.
    #[error("istiod did not answer within {seconds} s")]
    Silent {
        /// Seconds that were waited.
        seconds: u64,
    },
    /// The stream ended with an error.
    #[error("the stream ended: {code:?}: {reason}")]
    Status {
        /// The gRPC status that the stream ended with.
        code: tonic::Code,
        /// The message of the status.
        reason: String,
    },
    /// The stream ended as it should.
    #[error("the stream ended")]
    Ended,
}
