//! Errors of the webhook, one enum for each boundary: certificates, and the start of the process. The
//! Kubernetes API has its enum in `cluster`, reviews have theirs in `review`. Why a pod is refused is
//! a diagnostic.

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
    /// A chain that is not PEM.
    #[error("the certificates are no PEM: {0}")]
    ChainText(pem::Error),
    /// A private key that is not PEM.
    #[error("the private key is no PEM: {0}")]
    KeyText(pem::Error),
    /// A certificate that is not PEM.
    #[error("no certificate as PEM: {0}")]
    Text(pem::Error),
    /// PEM that holds no certificate.
    #[error("no certificate: {0}")]
    Content(x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The key is another certificate's.
    #[error("certificate and key do not belong together: {0}")]
    Mismatch(rustls::Error),
    /// A certificate cannot be made, or the key of an authority cannot be read.
    #[error(transparent)]
    Issue(#[from] rcgen::Error),
    /// The certificate that is served cannot be read.
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
    /// The value of one key of the Secret is wrong.
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
        /// Why it cannot be read.
        error: io::Error,
    },
    /// The files of the certificate cannot be used.
    #[error("{} and {}: {error}", cert.display(), key.display())]
    Certificate {
        /// The file with the chain.
        cert: PathBuf,
        /// The file with the private key.
        key: PathBuf,
        /// Why they cannot be used.
        error: CertificateError,
    },
    /// The namespace of the service account cannot be read.
    #[error("{}: {error}; write --namespace", path.display())]
    Namespace {
        /// The file that should hold it.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// The TLS library takes no configuration.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}
