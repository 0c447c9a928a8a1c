//! TLS of the webhook: certificates that change while connections are served.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, crypto::CryptoProvider};

use super::error::CertificateError;

/// The certificate that new connections get. Open ones keep theirs.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    current: ArcSwapOption<CertifiedKey>,
}

impl Resolver {
    pub fn set(&self, key: CertifiedKey) {
        self.current.store(Some(Arc::new(key)));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// The cryptography of every TLS connection here. It is named and not taken from the process, whose
/// default another crate could change.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A server that speaks HTTP/2 and HTTP/1.1 with the resolver's certificate.
pub(super) fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads a certificate chain and its key, and makes sure that they belong together.
pub(super) fn certified_key(cert: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain = certificates(cert)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::KeyText)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateError::Mismatch)
}

/// The certificates of a PEM text.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(CertificateError::ChainText)
}
