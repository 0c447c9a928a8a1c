//! Opening a connection and speaking HTTP on it.

use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::HttpPeer;

use crate::body::request::RequestBody;
use crate::upstream::call::Named;
use crate::upstream::error::UpstreamError;
use crate::upstream::settings::{Protocol, Timeouts, TlsSettings, UpstreamSettings};

/// An idle HTTP/2 connection is probed this often, so that a dead one is noticed.
const H2_PING: Duration = Duration::from_secs(20);

/// A connection that requests can be sent on.
pub(crate) enum Fresh {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Opens connections. One for all workers: it holds no connection, only the TLS roots.
pub(crate) struct Connector {
    transport: TransportConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// # Errors
    /// When the certificates to trust cannot be loaded.
    pub(crate) fn new(settings: &UpstreamSettings) -> std::io::Result<Self> {
        // The library panics over certificates that it cannot read, the system's among them.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let make = || TransportConnector::new(connector_options(settings));
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
        std::panic::set_hook(hook);
        let transport = made.map_err(|_| {
            std::io::Error::other(
                "the trusted certificates cannot be read; check SSL_CERT_FILE, SSL_CERT_DIR and \
                 upstream.tls.caFile",
            )
        })?;
        Ok(Connector { transport })
    }

    /// Connects to an endpoint; TLS is verified against the configured name. A `named` upstream is
    /// in the pod or behind its Envoy, and spoken to in the clear.
    pub(crate) async fn connect(
        &self,
        endpoint: &SocketAddr,
        settings: &UpstreamSettings,
        named: Option<Named>,
        timeouts: &Timeouts,
    ) -> Result<Fresh, UpstreamError> {
        let protocol = named.map_or(settings.protocol, Named::protocol);
        let tls = settings.tls.as_ref().filter(|_| named.is_none());
        let peer = peer(endpoint, tls, protocol, timeouts)?;
        let stream = self.transport.new_stream(&peer).await.map_err(|error| {
            let timed_out = matches!(
                error.etype(),
                pingora_core::ErrorType::ConnectTimedout
                    | pingora_core::ErrorType::TLSHandshakeTimedout
            );
            if timed_out {
                UpstreamError::ConnectTimeout {
                    endpoint: endpoint.to_string(),
                    millis: timeouts.connect_ms,
                }
            } else {
                UpstreamError::Connect { endpoint: endpoint.to_string(), reason: plain(&error) }
            }
        })?;
        let http2 = match protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => stream.selected_alpn_proto() == Some(ALPN::H2),
        };
        let io = TokioIo::new(stream);
        let broken = |error: hyper::Error| UpstreamError::Connect {
            endpoint: endpoint.to_string(),
            reason: error.to_string(),
        };
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .adaptive_window(true)
                .keep_alive_interval(H2_PING)
                .max_header_list_size(u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX))
                .handshake(io)
                .await
                .map_err(broken)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "upstream HTTP/2 connection ended");
                }
            });
            return Ok(Fresh::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new()
            .max_headers(settings.header_count_max)
            .max_buf_size(settings.header_bytes_max.max(8192))
            .handshake(io)
            .await
            .map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream HTTP/1 connection ended");
            }
        });
        Ok(Fresh::Http1(sender))
    }
}

fn peer(
    endpoint: &SocketAddr,
    tls: Option<&TlsSettings>,
    protocol: Protocol,
    timeouts: &Timeouts,
) -> Result<HttpPeer, UpstreamError> {
    // An empty name would switch verification off; the bootstrap refuses it.
    let sni = tls.map(|tls| tls.server_name.clone());
    let tls = sni.is_some();
    let sni = sni.unwrap_or_default();
    let mut peer = match endpoint {
        SocketAddr::Inet(addr) => HttpPeer::new(*addr, tls, sni),
        SocketAddr::Unix(addr) => {
            let path = addr.as_pathname().map(|path| path.to_string_lossy().into_owned());
            HttpPeer::new_uds(&path.unwrap_or_default(), tls, sni).map_err(|error| {
                UpstreamError::Connect { endpoint: endpoint.to_string(), reason: plain(&error) }
            })?
        }
    };
    peer.options.connection_timeout = Some(Duration::from_millis(timeouts.connect_ms));
    peer.options.total_connection_timeout =
        Some(Duration::from_millis(timeouts.connect_ms + timeouts.tls_ms));
    peer.options.alpn = alpn(protocol);
    Ok(peer)
}

/// What is offered in the TLS handshake, or spoken on plain connections.
pub(crate) fn alpn(protocol: Protocol) -> ALPN {
    match protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::Http2 => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    }
}

/// Whom connections trust; `None` for the system's certificates.
pub(crate) fn connector_options(settings: &UpstreamSettings) -> Option<ConnectorOptions> {
    let path = settings.tls.as_ref()?.ca_file.as_ref()?;
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some(path.to_string_lossy().into_owned());
    Some(options)
}

/// The innermost cause, which is the one that an operator can act on.
fn plain(error: &pingora_core::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut text = None;
    while let Some(inner) = source {
        text = Some(inner.to_string());
        source = inner.source();
    }
    text.or_else(|| error.context.as_ref().map(|context| context.as_str().to_owned()))
        .unwrap_or_else(|| error.etype().as_str().to_owned())
}
