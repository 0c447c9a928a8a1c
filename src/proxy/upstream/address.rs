//! Where an endpoint listens, after its name has been resolved. Endpoints as they are configured
//! are [`Address`](crate::upstream::settings::Address)es.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The resolved address of an endpoint. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum EndpointAddress {
    Tcp(SocketAddr),
    Unix(Arc<Path>),
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
