//! Handing a connection over after a 101: from then on bytes go both ways untouched.
//!
//! The tunnel begins only when the upstream has answered 101 to a request that asked for it; any
//! other answer is an ordinary response.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::serve::Open;

/// Connects both sides once each has switched. Runs until one of them is done; it counts as an
/// open connection until then, so that a drain waits for it.
pub(crate) fn tunnel(client: OnUpgrade, upstream: OnUpgrade, open: Open) {
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
