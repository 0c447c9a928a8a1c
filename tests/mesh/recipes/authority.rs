//! Workload certificates, as istiod issues them.

use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// By which a client that checks names instead of identities knows the server.
pub const SERVER_NAME: &str = "reviews.test";

/// What a sidecar offers: a listener in PERMISSIVE mode tells by it who speaks mTLS.
const ISTIO_ALPN: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The mesh's certificate authority.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        let cert = params.self_signed(&key).expect("a certificate authority");
        let (pem, der) = (cert.pem(), cert.der().clone());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a workload, by URIs (separated by commas, as Envoy writes them) alone; the server's has a name besides, since the
    /// tests' client checks names.
    fn issue(&self, identity: &str, name: Option<&str>) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<_> = name.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        // Istio's have no subject, and one that were the issuer's would look self-signed.
        params.distinguished_name = DistinguishedName::new();
        for uri in identity.split(',') {
            let uri = Ia5String::try_from(uri).expect("an identity");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// The transport socket of an inbound filter chain that demands a certificate of this trust
    /// domain.
    pub fn transport_socket(&self) -> Value {
        let identity = "spiffe://cluster.local/ns/bookinfo/sa/reviews";
        let (cert, key) = self.issue(identity, Some(SERVER_NAME));
        let type_url = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("type.googleapis.com/{type_url}"),
                "require_client_certificate": true,
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificates": [{
                        "certificate_chain": {"inline_string": cert.pem()},
                        "private_key": {"inline_string": key.serialize_pem()},
                    }],
                    "validation_context": {
                        "trusted_ca": {"inline_string": self.pem},
                        "match_typed_subject_alt_names": [{
                            "san_type": "URI",
                            "matcher": {"prefix": "spiffe://cluster.local/"},
                        }],
                    },
                },
            },
        })
    }

    /// The client's side for a workload with this identity, for HTTP of this version.
    pub fn connector(&self, identity: &str, alpn: &str) -> TlsConnector {
        let (cert, key) = self.issue(identity, None);
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the authority is one");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("TLS versions")
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![cert.der().clone()], key)
                .expect("a client certificate");
        let offered = ["istio", alpn];
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Which connections a chain with [`Authority::transport_socket`] is for.
pub fn chain_match(plain: &Value) -> Value {
    let mut chain_match = plain.clone();
    chain_match["transport_protocol"] = "tls".into();
    chain_match["application_protocols"] = json!(ISTIO_ALPN);
    chain_match
}
