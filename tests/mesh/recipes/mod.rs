//! The objects of `istio/` before a real Envoy on loopback, which takes neither root nor network
//! namespaces.
//!
//! Envoy has what istiod sent (`tests/mesh/captured`), as a static configuration, with what
//! `outrigger istio render` prints put where istiod puts it. In a pod the kernel redirects
//! connections to Envoy, which asks it for the address that was called: the inbound recipe tells
//! Outrigger that address by `%DOWNSTREAM_LOCAL_ADDRESS%`, and Istio's own cluster calls it. Here
//! nothing is redirected. A listener filter for the PROXY protocol stands for the one for the
//! original destination, and the client names the application's address in a line before all
//! else, TLS included. The rest of Envoy cannot tell the difference.
//!
//! Outbound needs nothing of that: the service's address is the one where Envoy listens, so that
//! what Outrigger sends there comes to Envoy a second time, as it does in a pod.
//!
//! What was captured had no mutual TLS. The filter chain for it is made of the one for plain text
//! as istiod makes it in PERMISSIVE mode.

mod authority;
mod envoy;
mod identity;
mod inbound;
mod outbound;
mod sidecar;
mod through;

use crate::pod::Version;
use crate::support::{Origin, Reply, Request, Response};

/// Those that Istio's releases of these years are built on.
const VERSIONS: [Version; 2] = [Version::Older, Version::Newer];

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const BATCH: &str = "spiffe://cluster.local/ns/shop/sa/batch";

/// An application whose responses may be cached and tell how many came before.
async fn counting() -> Origin {
    let app = Origin::start().await;
    app.on("*", |r| Reply::cached("max-age=600", r.nth.to_string()));
    app
}

/// Fields that only Envoy and Outrigger tell each other.
fn ours(request: &Request) -> Vec<&(String, String)> {
    let fields = request.head.headers.iter();
    fields.filter(|(name, _)| name.to_lowercase().starts_with("x-outrigger-")).collect()
}

/// Panics unless Outrigger gave this reason.
#[track_caller]
fn assert_detail(response: &Response, detail: &str) {
    assert_eq!(response.cache().get("detail"), Some(detail), "{response:#?}");
}
