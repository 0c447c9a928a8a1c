//! What can go wrong around the webhook, one enum for each boundary: certificates, and the process's
//! own start. The Kubernetes API has its enum in `cluster`, a review in `review`. Why a pod is
//! refused is a diagnostic.

use std::io;
use std::path::PathBuf;

use rustls::client::VerifierBuilderError;
use rustls::pki_types::{InvalidDnsNameError, pem};

/// Why keys and certificates cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A chain without a certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The text of a chain.
    #[error("the certificates are no PEM: {0}")]
    ChainText(pem::Error),
    /// The text of a private key.
    #[error("the private key is no PEM: {0}")]
    KeyText(pem::Error),
    /// The text of one certificate.
    #[error("no certificate as PEM: {0}")]
    Text(pem::Error),
    /// The content of one certificate.
    #[error("no certificate: {0}")]
    Content(x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The key is another certificate's.
    #[error("certificate and key do not belong together: {0}")]
    Mismatch(rustls::Error),
    /// A certificate cannot be made, or the key of an authority is none.
    #[error(transparent)]
    Issue(#[from] rcgen::Error),
    /// The certificate that is served is not readable.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// A client that trusts the authorities would not trust the certificate.
    #[error(transparent)]
    NotTrusted(#[from] rustls::Error),
    /// No client can be made that trusts the authorities.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
    /// A name that no certificate can be for.
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
    /// A key of the Secret that is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A Secret without an authority.
    #[error("ca.crt holds no certificate")]
    NoAuthority,
    /// One key of the Secret.
    #[error("{key}: {error}")]
    Secret {
        /// Which key, such as `tls.crt`.
        key: &'static str,
        /// What is wrong with its value.
        error: Box<CertificateError>,
    },
}

impl CertificateError {
    /// The same, of one key of the Secret.
    pub(super) fn of(self, key: &'static str) -> Self {
        CertificateError::Secret { key, error: Box::new(self) }
    }
}

/// Why the webhook cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// A file of the certificate cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The files of the certificate cannot be used.
    #[error("{} and {}: {error}", cert.display(), key.display())]
    Certificate {
        /// The chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
        /// Why.
        error: CertificateError,
    },
    /// The service account tells no namespace.
    #[error("{}: {error}; write --namespace", path.display())]
    Namespace {
        /// The file that should tell it.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The TLS library takes no configuration.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}
