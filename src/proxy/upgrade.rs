//! Tunnels after a 101 (RFC 9110 §7.8): bytes are copied both ways unchanged.
//!
//! A tunnel begins only when the upstream has answered 101 to a request that asked for an upgrade.
//! Any other answer is an ordinary response and never comes here.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::client::OpenConnection;

/// Connects both sides once each has switched, in a task of its own that runs until one of them
/// ends. The tunnel counts as an open connection until then, so that a drain waits for it.
pub(crate) fn tunnel(client: OnUpgrade, upstream: OnUpgrade, open: OpenConnection) {
    tokio::spawn(async move {
        let _open = open;
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade did not complete");
                return;
            }
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "upgraded connection ended");
        }
    });
}
