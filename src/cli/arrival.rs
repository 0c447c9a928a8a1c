//! What the mesh says about a request, as command line arguments.

use outrigger_policy::{Arrival, Peer, Side};

use crate::admin::explain::{not_a_peer, parse_side};
use crate::app::error::CliError;
use crate::cli::admin_client::encoded;

/// What the mesh says about a request.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ArrivalArgs {
    /// Side of the pod on which the request comes in: inbound or outbound.
    #[arg(long, value_name = "SIDE", value_parser = parse_side)]
    side: Option<Side>,
    /// Port that the request is for.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Identity of the caller: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT.
    #[arg(long, value_name = "URI")]
    peer: Option<String>,
}

impl ArrivalArgs {
    /// As the data path would have it; `port_of_url` is taken where no port is said.
    pub(super) fn arrival(&self, port_of_url: Option<u16>) -> Result<Arrival<'_>, CliError> {
        let peer = match self.peer.as_deref() {
            None => None,
            Some(uri) => Some(Peer::parse(uri).ok_or_else(|| CliError::Usage(not_a_peer(uri)))?),
        };
        let port = self.port.or(port_of_url).unwrap_or(80);
        Ok(Arrival { entry: self.side.map(|side| (side, port)), peer, own: None })
    }

    /// As the admin port reads it.
    pub(super) fn query(&self) -> String {
        let mut query = String::new();
        if let Some(side) = self.side {
            query.push_str(&format!("&side={}", side.as_str()));
        }
        if let Some(port) = self.port {
            query.push_str(&format!("&port={port}"));
        }
        if let Some(peer) = &self.peer {
            query.push_str(&format!("&peer={}", encoded(peer)));
        }
        query
    }
}
