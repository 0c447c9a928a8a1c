//! `outrigger inject-webhook`: runs the admission webhook that puts Outrigger into pods.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use outrigger_inject::webhook::{
    ApiServer, CertificateLifetimes, Certificates, ClusterPlace, SERVICE_ACCOUNT, Settings,
    own_namespace, run,
};
use outrigger_policy::error::ValueError;
use outrigger_policy::values::Span;
use outrigger_telemetry::logging::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::error::CliError;
use crate::cli::inject;

/// `outrigger inject-webhook`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Pods labelled outrigger.io/inject: \"true\" get it. With --secret it makes its own \
    certificate, shares it with other replicas in that Secret, and keeps the caBundle of the webhook \
    configuration. With --cert and --key it serves what these files hold, and reads them again when \
    they change."
)]
pub struct WebhookArgs {
    /// Injection file: template, image, native, mode, mesh.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Deny pods that Outrigger cannot be put into, instead of letting them start without it.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    own: OwnArgs,
    /// How often certificates are looked after.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    check_interval: Duration,
    /// How long connections are accepted after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    drain_quiet: Duration,
    /// How long requests under way may take after that.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    drain_timeout: Duration,
    /// Write the log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

/// A certificate from files.
#[derive(Clone, Debug, Args)]
struct FileArgs {
    /// Certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "secret")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A certificate that the webhook makes and renews itself.
#[derive(Clone, Debug, Args)]
struct OwnArgs {
    /// The Secret that keeps keys and certificates.
    #[arg(long, value_name = "NAME", requires_all = ["service", "webhook_configuration"])]
    secret: Option<String>,
    /// The service that the API server calls.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The MutatingWebhookConfiguration whose caBundle is kept.
    #[arg(long, value_name = "NAME")]
    webhook_configuration: Option<String>,
    /// The namespace of service and Secret [default: that of this pod].
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How long a certificate lives; it is replaced after two thirds.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    cert_lifetime: Duration,
    /// How long the authority lives that signs it; it is replaced after two thirds.
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = duration)]
    ca_lifetime: Duration,
    /// The folder with token, ca.crt and namespace of the service account.
    #[arg(long, value_name = "FOLDER", default_value = SERVICE_ACCOUNT)]
    service_account: PathBuf,
}

fn duration(text: &str) -> Result<Duration, ValueError> {
    Span::parse(text).map(|span| Duration::from_millis(span.0))
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn inject_webhook(args: WebhookArgs) -> Result<(), CliError> {
    let (name, config) = inject::load(&args.config)?;
    let options = config.options(&name)?;
    let settings = Settings {
        options,
        strict: args.strict,
        certificates: certificates(args.files, args.own)?,
        interval: args.check_interval.max(Duration::from_millis(50)),
        quiet: args.drain_quiet,
        drain: args.drain_timeout,
    };
    logging::start(if args.log_json { LogFormat::Json } else { LogFormat::Text });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::Startup(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(args.listen, settings))
}

fn certificates(files: FileArgs, own: OwnArgs) -> Result<Certificates, CliError> {
    if let (Some(cert), Some(key)) = (files.cert, files.key) {
        return Ok(Certificates::Files { cert, key });
    }
    let (Some(secret), Some(service), Some(webhook_configuration)) =
        (own.secret, own.service, own.webhook_configuration)
    else {
        return Err(CliError::Usage(
            "where does the certificate come from? Write --cert and --key, or --secret, --service \
             and --webhook-configuration"
                .to_owned(),
        ));
    };
    if own.cert_lifetime < Duration::from_secs(2) || own.cert_lifetime > own.ca_lifetime {
        return Err(CliError::Usage(
            "--cert-lifetime: write 2s or more, and not more than --ca-lifetime".to_owned(),
        ));
    }
    let namespace = match own.namespace {
        Some(namespace) => namespace,
        None => own_namespace(&own.service_account)
            .map_err(|error| CliError::Usage(error.to_string()))?,
    };
    Ok(Certificates::Own {
        api: api_server(own.service_account)?,
        place: ClusterPlace { namespace, service, secret, webhook_configuration },
        lifetimes: CertificateLifetimes { ca: own.ca_lifetime, cert: own.cert_lifetime },
    })
}

/// The API server, by the variables that a kubelet sets in each container.
fn api_server(account: PathBuf) -> Result<ApiServer, CliError> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| {
            CliError::Usage(format!(
                "{name} is not set, as it is in a pod; run this in a cluster, or use --cert and --key"
            ))
        })
    };
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let port = port.parse().map_err(|_| {
        CliError::Usage(format!("KUBERNETES_SERVICE_PORT: \"{port}\" is no port number"))
    })?;
    Ok(ApiServer { host, port, account })
}

async fn serve(address: SocketAddr, settings: Settings) -> Result<(), CliError> {
    let startup = |reason: String| CliError::Startup(reason);
    let failed = |error: std::io::Error| startup(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| startup(format!("cannot listen on {address}: {error}")))?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run(listener, settings, stop).await.map_err(|error| startup(error.to_string()))
}
