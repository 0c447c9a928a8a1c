//! Listeners to which Envoy sends requests: what its route says in header fields is believed there
//! and nowhere else. Envoy itself is in `tests/mesh`; here a client plays its part.

mod inbound;
mod outbound;
mod start;
mod through;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::support::{Origin, Proxy, Response, Setup, own_address};

/// The pod that the proxy under test belongs to.
const POD: &str = "10.77.0.3";

/// A side of the pod, and how Envoy speaks to it.
struct Side {
    mode: &'static str,
    /// The pod's addresses; with loopback among them where the tests' origins are to be in the pod.
    pod: &'static [&'static str],
    /// The field that names where a request goes.
    to: &'static str,
    /// Where an origin has to be so that requests may go there.
    reaches: fn() -> IpAddr,
}

/// From Envoy to the application in the pod.
const INBOUND: Side = Side {
    mode: "inbound",
    pod: &["127.0.0.1", POD],
    to: "x-outrigger-upstream",
    reaches: || IpAddr::V4(Ipv4Addr::LOCALHOST),
};

/// From the application in the pod to others: on an address of this machine that is not loopback.
const OUTBOUND: Side =
    Side { mode: "outbound", pod: &[POD], to: "x-outrigger-orig-dst", reaches: own_address };

impl Side {
    /// A proxy on this side alone.
    async fn proxy(&self, policy: &str) -> Proxy {
        Setup::mesh(self.mode, &self.pod.join(", ")).policy(policy).start().await
    }

    /// An origin to which it may send requests.
    async fn origin(&self) -> Origin {
        Origin::start_at(SocketAddr::new((self.reaches)(), 0)).await
    }
}

/// A request as Envoy's inbound route sends it on.
async fn from_peer(proxy: &Proxy, to: SocketAddr, path: &str, peer: Option<&str>) -> Response {
    let to = to.to_string();
    let mut headers = vec![("x-outrigger-upstream", to.as_str()), ("x-outrigger-port", "8080")];
    headers.extend(peer.map(|peer| ("x-outrigger-peer", peer)));
    proxy.fetch("GET", path, &headers).await
}
