//! TLS towards the upstream: which certificates are trusted, which name a certificate must carry,
//! and which protocols are offered. Certificates are read once, when the process starts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::upstream::settings::{Protocol, TlsSettings};

/// ALPN identifiers (RFC 7301 §6, RFC 9113 §3.1).
const HTTP_1_1: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// Makes TLS connections to the configured upstream.
#[derive(Clone)]
pub(crate) struct TlsClient {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl TlsClient {
    /// # Errors
    /// The certificates to trust cannot be read, or the server name is no name.
    pub(crate) fn new(settings: &TlsSettings, protocol: Protocol) -> io::Result<Self> {
        let name = &settings.server_name;
        let server_name = ServerName::try_from(name.clone()).map_err(|error| {
            io::Error::other(format!("upstream.tls.serverName \"{name}\" is no name: {error}"))
        })?;
        let roots = roots(settings.ca_file.as_deref()).map_err(|reason| {
            io::Error::other(format!(
                "the trusted certificates cannot be read ({reason}); check SSL_CERT_FILE, \
                 SSL_CERT_DIR and upstream.tls.caFile"
            ))
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn(protocol);
        Ok(TlsClient { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Secures a connection. The certificate is verified against the configured name.
    ///
    /// # Errors
    /// The handshake fails, or the certificate is not trusted.
    pub(crate) async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(self.server_name.clone(), stream).await
    }
}

/// Whether the server has chosen HTTP/2.
pub(crate) fn chose_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

/// The protocols to offer in a handshake, the preferred one first.
fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    let offered: &[&[u8]] = match protocol {
        Protocol::Http1 => &[HTTP_1_1],
        Protocol::Http2 => &[H2],
        Protocol::Auto => &[H2, HTTP_1_1],
    };
    offered.iter().map(|name| name.to_vec()).collect()
}

/// Why the certificates that the upstream is verified with cannot be used.
#[derive(Debug, thiserror::Error)]
enum TrustError {
    /// The file of `upstream.tls.caFile`.
    #[error("{0}: {1}")]
    File(String, pem::Error),
    /// The store of the system.
    #[error(transparent)]
    System(rustls_native_certs::Error),
    /// A certificate that is none.
    #[error(transparent)]
    Certificate(#[from] tokio_rustls::rustls::Error),
}

/// The trusted certificates. Of `ca_file` all must be readable. Without it those of the system are
/// taken: one that cannot be read is logged, and only a store without any is an error.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let certificates = match ca_file {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| TrustError::File(path.display().to_string(), error))?,
        None => {
            let mut found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() && !found.errors.is_empty() {
                return Err(TrustError::System(found.errors.swap_remove(0)));
            }
            for error in &found.errors {
                tracing::warn!(%error, "a trusted certificate of the system cannot be read");
            }
            found.certs
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}
