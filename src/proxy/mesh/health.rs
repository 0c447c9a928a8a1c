//! Envoy's health checks of a mesh listener.
//!
//! They are answered on the traffic listener itself, where a worker that hangs shows.

use outrigger_policy::Side;

use crate::mesh::fields::{ORIGINAL_DESTINATION, UPSTREAM};

/// The host of Envoy's health checks. Clients cannot send it to a mesh listener: their requests
/// pass Envoy's routes, which match other hosts.
const HOST: &[u8] = b"outrigger.internal";
/// The path of Envoy's health checks.
const PATH: &str = "/readyz";

/// Whether a request is a health check of Envoy, for this listener itself. Always false on a direct
/// listener, which has no `side`.
pub(crate) fn is_health_check<B>(side: Option<Side>, request: &http::Request<B>) -> bool {
    if side.is_none() || request.uri().path() != PATH {
        return false;
    }
    let headers = request.headers();
    // A request that Envoy forwards always names an address.
    if headers.contains_key(&UPSTREAM) || headers.contains_key(&ORIGINAL_DESTINATION) {
        return false;
    }
    match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes() == HOST,
        None => headers.get(http::header::HOST).is_some_and(|host| host.as_bytes() == HOST),
    }
}
