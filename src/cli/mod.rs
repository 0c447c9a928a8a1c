//! The command line: one file per command. Names and exit codes are a contract.

mod admin_client;
mod arrival;
mod breaker;
mod cache;
mod check;
mod demo;
mod explain;
mod health;
mod inject;
mod inject_webhook;
mod istio;
mod purge;
mod run;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outrigger_diagnostic::Diagnostic;

use crate::app::config::ModeConfig;
use crate::cli::arrival::ArrivalArgs;

/// Wrong usage or configuration.
pub const EXIT_USAGE: u8 = 64;
/// The process could not start, or one that runs could not be reached.
pub const EXIT_STARTUP: u8 = 1;
/// A purge was not acknowledged by all.
pub const EXIT_INCOMPLETE: u8 = 3;

/// Why a command failed, with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The user's input is wrong.
    #[error("{0}")]
    Usage(String),
    /// The process could not start.
    #[error("{0}")]
    Startup(String),
    /// It was done, but not everywhere.
    #[error("{0}")]
    Incomplete(String),
}

impl From<Diagnostic> for CliError {
    fn from(found: Diagnostic) -> Self {
        CliError::Usage(found.to_string())
    }
}

impl CliError {
    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Startup(_) => EXIT_STARTUP,
            Self::Incomplete(_) => EXIT_INCOMPLETE,
        })
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    about = "An HTTP cache that runs beside a service",
    long_about = "An HTTP cache that runs beside a service in an Envoy or Istio mesh. \
                  Try `outrigger demo`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Run(RunArgs),
    /// Run an embedded upstream and a cache before it, and print what to try.
    Demo(DemoArgs),
    /// Check bootstrap and policy files, and policies in EnvoyFilters.
    Check {
        /// Files to check.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Explain what would happen to a request, and to its response.
    Explain(ExplainArgs),
    /// Purge stored responses through the admin port of a running process.
    Purge(PurgeArgs),
    /// See the circuit breakers of a running process, or force them open or closed.
    Breaker(BreakerArgs),
    /// See what a running process has stored.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print Istio's objects for a workload.
    #[command(subcommand)]
    Istio(istio::IstioCommand),
    /// Ask a running process whether it lives, or wants traffic: for exec probes.
    Health(HealthArgs),
    /// Print the JSON Schema of a kind of file.
    Schema {
        /// Which kind.
        kind: SchemaKind,
    },
    /// Put Outrigger into the workloads of a YAML stream.
    Inject(inject::InjectArgs),
    /// Run the admission webhook that puts Outrigger into pods.
    InjectWebhook(inject_webhook::WebhookArgs),
    /// Print the version.
    Version,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SchemaKind {
    /// Policy files.
    Policy,
    /// Bootstrap files.
    Config,
}

/// `outrigger run`. Flags win over the environment, which wins over the bootstrap file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Bootstrap file (YAML); see `outrigger schema config`.
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Policy file (YAML), reloaded when it changes; see `outrigger schema policy`.
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_POLICY")]
    pub policy: Option<PathBuf>,
    /// Where to listen; may be repeated [default: 127.0.0.1:15480].
    #[arg(long, value_name = "ADDR|unix:PATH", env = "OUTRIGGER_LISTEN", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Listen for the pod's Envoy: inbound (127.0.0.1:15480) for the application in this pod,
    /// outbound (127.0.0.1:15481) for what it calls; may be both, with a comma.
    #[arg(long, value_name = "MODE", env = "OUTRIGGER_MODE", value_delimiter = ',')]
    pub mode: Vec<ModeConfig>,
    /// Take policy from istiod: grpcs://host:port, or grpc://host:port without TLS, for tests.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_XDS")]
    pub xds: Option<String>,
    /// Folder in which the last good policy from istiod is kept.
    #[arg(long, value_name = "DIR", env = "OUTRIGGER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The upstream: http://host:port, https://host, h2c://host:port or unix:/path.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_UPSTREAM")]
    pub upstream: Option<String>,
    /// Admin address: health, metrics, purging [default: 127.0.0.1:15490].
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN")]
    pub admin: Option<String>,
    /// A second port that only tells: /metrics, /healthz, /readyz; may be reached from outside.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_METRICS")]
    pub metrics: Option<String>,
    /// Redis, shared by all pods: redis://host:port and other forms, see `outrigger schema config`.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Export traces to this OTLP gRPC endpoint, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", env = "OUTRIGGER_OTLP")]
    pub otlp: Option<String>,
}

/// `outrigger demo`.
#[derive(Clone, Debug, clap::Args)]
struct DemoArgs {
    /// Where the cache listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15480")]
    listen: String,
    /// Admin address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15490")]
    admin: String,
}

/// `outrigger explain`.
#[derive(Clone, Debug, clap::Args)]
struct ExplainArgs {
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Method.
    method: String,
    /// URL, with scheme and host.
    url: String,
    /// Request header; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Status of the response [default: 200 if a response header is given].
    #[arg(long, value_name = "N")]
    status: Option<u16>,
    /// Response header; may be repeated.
    #[arg(long = "response-header", value_name = "NAME: VALUE")]
    response_headers: Vec<String>,
    #[command(flatten)]
    arrival: ArrivalArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `outrigger health`.
#[derive(Clone, Debug, clap::Args)]
struct HealthArgs {
    /// Admin address of the running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Ask whether it wants traffic, not whether it lives.
    #[arg(long)]
    ready: bool,
}

/// Where a running process takes questions.
const DEFAULT_ADMIN: &str = "127.0.0.1:15490";

/// `outrigger purge`.
#[derive(Clone, Debug, clap::Args)]
struct PurgeArgs {
    /// Admin address of a running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    what: PurgeWhat,
    /// Make responses stale instead of voiding them.
    #[arg(long)]
    soft: bool,
    /// What to wait for.
    #[arg(long, value_enum, default_value = "appended")]
    wait: WaitFor,
    /// How long to wait for acknowledgements.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    timeout: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which stored responses: exactly one of these.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PurgeWhat {
    /// Those of a URL, in every variant.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Those that carry a tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Those whose URL begins so.
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// What a purge waits for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WaitFor {
    /// Nothing.
    None,
    /// Its place in the purge log.
    Appended,
    /// All live pods.
    All,
}

impl WaitFor {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Appended => "appended",
            Self::All => "all",
        }
    }
}

/// `outrigger breaker`.
#[derive(Clone, Debug, clap::Args)]
struct BreakerArgs {
    /// Admin address of a running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Force this state on it; without, its state is printed.
    #[arg(value_enum)]
    state: Option<BreakerWanted>,
    /// Which one: upstream, inbound:PORT, HOST:PORT of a service, or route:NAME. Without, all.
    #[arg(long, value_name = "NAME", requires = "state")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is wanted of a circuit breaker.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum BreakerWanted {
    /// Nothing is sent to the upstream.
    Open,
    /// Everything is sent.
    Closed,
    /// It judges for itself again.
    Auto,
}

impl BreakerWanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Auto => "auto",
        }
    }
}

/// `outrigger cache`.
#[derive(Clone, Debug, Subcommand)]
enum CacheCommand {
    /// What is stored for a URL, in each tier.
    Get {
        /// Admin address of a running process.
        #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
        admin: String,
        /// Request header, which may select a variant; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        arrival: ArrivalArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// URL, with scheme and host.
        url: String,
    },
    /// How full the tiers are and what they do.
    Stat {
        /// Admin address of a running process.
        #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
        admin: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors.
            let wrong = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if wrong { EXIT_USAGE } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Check { files } => check::check(&files),
        Command::Explain(args) => explain::explain(&args),
        Command::Purge(args) => purge::purge(&args),
        Command::Breaker(args) => breaker::breaker(&args),
        Command::Cache(command) => cache::cache(&command),
        Command::Istio(command) => istio::istio(&command),
        Command::Health(args) => health::health(&args),
        Command::Schema { kind } => schema::schema(kind),
        Command::Inject(args) => inject::inject(&args),
        Command::InjectWebhook(args) => inject_webhook::inject_webhook(args),
        Command::Version => {
            println!("outrigger {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger: {error}");
            error.code()
        }
    }
}
