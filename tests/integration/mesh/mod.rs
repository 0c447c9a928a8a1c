//! Listeners to which Envoy sends requests: what its route says in header fields is believed there
//! and nowhere else. Envoy itself is in `tests/mesh`; here a client plays its part.

mod inbound;
mod outbound;
mod start;
mod through;

use std::net::SocketAddr;

use crate::support::{Origin, Proxy, Response, Setup, own_address};

/// The pod that the proxy under test belongs to.
const POD: &str = "10.77.0.3";

/// A proxy on the inbound side, of a pod whose address is loopback, where the tests' origins are.
async fn inbound(policy: &str) -> Proxy {
    Setup::mesh("inbound", &format!("127.0.0.1, {POD}")).policy(policy).start().await
}

/// A proxy on the outbound side.
async fn outbound(policy: &str) -> Proxy {
    Setup::mesh("outbound", POD).policy(policy).start().await
}

/// A request as Envoy's inbound route sends it on.
async fn from_peer(proxy: &Proxy, to: SocketAddr, path: &str, peer: Option<&str>) -> Response {
    let to = to.to_string();
    let mut headers = vec![("x-outrigger-upstream", to.as_str()), ("x-outrigger-port", "8080")];
    headers.extend(peer.map(|peer| ("x-outrigger-peer", peer)));
    proxy.fetch("GET", path, &headers).await
}

/// An origin that the outbound side may call: on an address of this machine that is not loopback.
async fn elsewhere() -> (Origin, SocketAddr) {
    let addr = SocketAddr::new(own_address(), 0);
    let origin = Origin::start_at(addr).await;
    let addr = origin.url().strip_prefix("http://").unwrap().parse().unwrap();
    (origin, addr)
}
