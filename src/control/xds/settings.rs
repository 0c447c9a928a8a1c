//! What the client of istiod is told at its start.

use std::path::PathBuf;

use crate::xds::address::XdsAddress;
use crate::xds::node::NodeIdentity;

/// How istiod is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsSettings {
    /// The address of istiod.
    pub address: XdsAddress,
    /// The name that its certificate must carry; `None` for the host of the address.
    pub server_name: Option<String>,
    /// The service account's token.
    pub token_file: PathBuf,
    /// Certificates of the authorities that may have signed istiod's.
    pub ca_file: PathBuf,
    /// Who this pod is.
    pub identity: NodeIdentity,
    /// Folder for the last good policy; `None` does not keep it.
    pub state_dir: Option<PathBuf>,
}
