//! The admission webhook: an HTTPS server that injects into the pods that the API server asks about,
//! and looks after its own certificate.

mod api;
mod cluster;
mod error;
mod files;
mod keeper;
mod material;
mod patch;
mod review;
mod server;
#[cfg(test)]
mod simulation;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::api::Api;
use self::files::Files;
use self::keeper::{Keeper, keep};
use self::server::{Ending, Service};
use self::tls::Resolver;
use crate::config::Options;

pub use self::error::{CertificateError, WebhookError};
pub use self::material::CertificateLifetimes;

/// Where the kubelet puts the token of a pod's service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The settings of the webhook.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is injected into a pod that asks for it.
    pub options: Options,
    /// Refuse pods that Outrigger cannot be put into, instead of letting them start without.
    pub strict: bool,
    /// Where the certificate comes from.
    pub certificates: Certificates,
    /// How often certificates are looked after.
    pub interval: Duration,
    /// How long connections are accepted after the signal to end.
    pub quiet: Duration,
    /// How long requests under way may take after that.
    pub drain: Duration,
}

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificates {
    /// From files that something else renews.
    Files {
        /// The certificate chain, as PEM.
        cert: PathBuf,
        /// The private key of its first certificate, as PEM.
        key: PathBuf,
    },
    /// From an authority of our own, shared by replicas in a Secret.
    Own {
        /// How the API server is reached.
        api: ApiServer,
        /// The names of the webhook's objects in the cluster.
        place: ClusterPlace,
        /// How long certificates live.
        lifetimes: CertificateLifetimes,
    },
}

/// How the API server is reached from a pod.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Host or IP address (`KUBERNETES_SERVICE_HOST`).
    pub host: String,
    /// TCP port (`KUBERNETES_SERVICE_PORT`).
    pub port: u16,
    /// The folder with `token`, `ca.crt` and `namespace`.
    pub account: PathBuf,
}

/// Names of objects in the cluster.
#[derive(Clone, Debug)]
pub struct ClusterPlace {
    /// The namespace of the service and the Secret.
    pub namespace: String,
    /// The service that the API server calls.
    pub service: String,
    /// The Secret that keeps keys and certificates.
    pub secret: String,
    /// The webhook configuration whose `caBundle` is kept.
    pub webhook_configuration: String,
}

impl ClusterPlace {
    /// The names that the certificate is for.
    fn names(&self) -> Vec<String> {
        let base = format!("{}.{}.svc", self.service, self.namespace);
        vec![base.clone(), format!("{base}.cluster.local")]
    }
}

/// The namespace of the pod that this process runs in.
///
/// # Errors
/// When the file of the service account cannot be read.
pub fn own_namespace(account: &Path) -> Result<String, WebhookError> {
    let path = account.join("namespace");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(WebhookError::Namespace { path, error }),
    }
}

/// Answers admission reviews until `stop`, and looks after the certificate meanwhile.
///
/// # Errors
/// When the certificate's files are not valid at the start.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), WebhookError> {
    let resolver = Arc::new(Resolver::default());
    let config = tls::server_config(Arc::clone(&resolver))?;
    let upkeep = match settings.certificates {
        Certificates::Files { cert, key } => {
            let files = Files::open(&cert, &key, resolver)?;
            tokio::spawn(files.watch(settings.interval))
        }
        Certificates::Own { api, place, lifetimes } => {
            let names = place.names();
            let ClusterPlace { namespace, service, secret, webhook_configuration } = place;
            let ApiServer { host, port, account } = api;
            let api =
                Api { host, port, account, namespace, service, secret, webhook_configuration };
            let keeper = Keeper::new(api, resolver, names, lifetimes);
            tokio::spawn(keep(keeper, Arc::new(SystemTime::now), settings.interval))
        }
    };
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, mesh = ?settings.options.mesh, "the webhook listens");
    let service = Arc::new(Service::new(settings.options, settings.strict));
    let ending = Ending { quiet: settings.quiet, drain: settings.drain };
    server::serve(listener, TlsAcceptor::from(Arc::new(config)), service, stop, ending).await;
    upkeep.abort();
    Ok(())
}
