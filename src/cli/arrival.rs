//! What the mesh says about a request, as command line arguments.

use form_urlencoded::Serializer;
use outrigger_policy::{Arrival, Peer, Side};

use crate::app::error::CliError;

/// What the mesh says about a request.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ArrivalArgs {
    /// Side of the pod on which the request comes in: inbound or outbound.
    #[arg(long, value_name = "SIDE")]
    side: Option<Side>,
    /// Port that the request is for.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Identity of the caller: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT.
    #[arg(long, value_name = "URI")]
    peer: Option<String>,
}

impl ArrivalArgs {
    /// What the data path would read of the request; `port_of_url` is used where no port is given.
    pub(super) fn arrival(&self, port_of_url: Option<u16>) -> Result<Arrival<'_>, CliError> {
        let peer = self.peer.as_deref().map(Peer::try_from).transpose();
        let peer = peer.map_err(|error| CliError::Usage(error.to_string()))?;
        let port = self.port.or(port_of_url).unwrap_or(80);
        Ok(Arrival { entry: self.side.map(|side| (side, port)), peer, own: None })
    }

    /// Adds the parameters that the admin port's `/explain` reads.
    pub(super) fn add_to(&self, query: &mut Serializer<'_, String>) {
        if let Some(side) = self.side {
            query.append_pair("side", side.as_str());
        }
        if let Some(port) = self.port {
            query.append_pair("port", &port.to_string());
        }
        if let Some(peer) = &self.peer {
            query.append_pair("peer", peer);
        }
    }
}
