//! A certificate authority of the test's own.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The names that the certificate is for; the first is istiod's.
const NAMES: [&str; 3] = ["istiod.istio-system.svc", "localhost", "127.0.0.1"];

/// A server's side of TLS, and the authority that clients have to trust.
#[derive(Clone)]
pub struct Tls {
    /// The certificate of the authority, as PEM.
    pub ca_pem: String,
    pub(super) acceptor: TlsAcceptor,
}

impl Tls {
    /// A new authority and a server certificate from it.
    pub fn new() -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).expect("a certificate authority");
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().expect("a key");
        let names = NAMES.map(str::to_owned).to_vec();
        let cert = CertificateParams::new(names).expect("parameters");
        let cert = cert.signed_by(&key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("TLS versions")
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .expect("a server configuration");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { ca_pem: ca_cert.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}
