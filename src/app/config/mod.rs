//! The bootstrap file: what needs a restart to change. Flags and environment win over it.

mod mesh;
mod upstream;

use std::path::PathBuf;

use outrigger_diagnostic::Diagnostic;
use outrigger_policy::values::ByteSize;
use outrigger_policy::yaml::{locate, parse_yaml};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::build::{self, Plan};
use crate::app::redis::RedisConfig;
use crate::app::redis::config::RedisUrl;
use crate::cli::{CliError, RunArgs};

pub use mesh::{MeshConfig, XdsConfig};
pub use upstream::{
    BalanceConfig, EjectionConfig, HealthCheckConfig, HostHeaderConfig, PoolConfig, TimeoutsConfig,
    TlsConfig, UpstreamConfig,
};

/// The bootstrap document. Units are in values (sizes) or in names (times).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(title = "Outrigger bootstrap")]
pub struct Config {
    /// Where to listen. Absent: 127.0.0.1:15480.
    pub listeners: Vec<ListenerConfig>,
    /// The service behind.
    pub upstream: UpstreamConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// The memory tier.
    pub memory: MemoryConfig,
    /// Redis: the tier and the purge log that pods share. Absent: neither.
    pub redis: Option<RedisConfig>,
    /// Who this pod is, in a mesh.
    pub mesh: MeshConfig,
    /// Where policy comes from.
    pub policy: PolicyConfig,
    /// Limits on client connections.
    pub limits: LimitsConfig,
    /// Collapsing of concurrent misses.
    pub coalesce: CoalesceConfig,
    /// Log, access log, traces.
    pub telemetry: TelemetryConfig,
    /// Shutdown.
    pub lifecycle: LifecycleConfig,
    /// What `Cache-Status` tells.
    pub cache_status: CacheStatusConfig,
    /// Worker threads. Absent: as many as there are cores for this process.
    pub workers: Option<usize>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenerConfig {
    /// `ADDRESS:PORT` or `unix:PATH`.
    pub address: String,
    /// Who sends requests to it.
    #[serde(default)]
    pub mode: ModeConfig,
}

/// Who sends requests to a listener.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "camelCase")]
pub enum ModeConfig {
    /// Clients. Requests go to the upstream that is configured.
    #[default]
    #[value(skip)]
    Direct,
    /// The pod's Envoy, requests for the application in this pod; its route names the address in
    /// `x-outrigger-upstream` and the caller in `x-outrigger-peer`.
    Inbound,
    /// The pod's Envoy, requests of the application in this pod; its route names the destination
    /// in `x-outrigger-orig-dst`.
    Outbound,
}

impl ModeConfig {
    /// Where it listens if nothing else is said.
    pub fn address(self) -> &'static str {
        match self {
            Self::Direct | Self::Inbound => "127.0.0.1:15480",
            Self::Outbound => "127.0.0.1:15481",
        }
    }
}

/// The admin port.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AdminConfig {
    /// `ADDRESS:PORT`. It has no authentication: keep it on loopback.
    pub address: String,
    /// `ADDRESS:PORT` of a second port that only tells: `/metrics`, `/healthz` and `/readyz`. It
    /// may be reached from outside the pod. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { address: "127.0.0.1:15490".to_owned(), metrics_address: None }
    }
}

/// The memory tier.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MemoryConfig {
    /// Bytes of stored responses, index included. Absent: a quarter of the memory limit.
    pub bytes_max: Option<ByteSize>,
    /// Bytes of one stored body.
    pub object_bytes_max: ByteSize,
    /// Variants of one key.
    pub variants_max: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig { bytes_max: None, object_bytes_max: ByteSize(8 << 20), variants_max: 16 }
    }
}

/// Where policy comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PolicyConfig {
    /// A policy file, reloaded when it changes. Absent: RFC 9111 and nothing beyond.
    pub file: Option<PathBuf>,
    /// Policy from istiod. What it says comes before the file: that replaces its routes.
    pub xds: Option<XdsConfig>,
    /// Folder in which the last good policy from istiod is kept, for a start without it. Absent:
    /// it is not kept.
    pub state_dir: Option<PathBuf>,
}

/// Limits on client connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LimitsConfig {
    /// Bytes of a request head, at least 8192.
    pub header_bytes_max: usize,
    /// Fields of a request head.
    pub header_count_max: usize,
    /// From the first byte of a request head to its last.
    pub header_read_timeout_ms: u64,
    /// Between requests.
    pub idle_timeout_ms: u64,
    /// Within a request body, HTTP/1 only.
    pub body_idle_timeout_ms: u64,
    /// For a client that does not take what it asked for.
    pub write_stall_timeout_ms: u64,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_streams_max: u32,
    /// HTTP/2 streams that may be reset before the connection is closed.
    pub h2_resets_max: usize,
    /// Bytes of an HTTP/2 header list.
    pub h2_header_list_bytes_max: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            header_bytes_max: 64 * 1024,
            header_count_max: 100,
            header_read_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            body_idle_timeout_ms: 60_000,
            write_stall_timeout_ms: 30_000,
            h2_streams_max: 256,
            h2_resets_max: 64,
            h2_header_list_bytes_max: 64 * 1024,
        }
    }
}

/// Collapsing of concurrent misses.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CoalesceConfig {
    /// Requests that may wait for one fetch; further ones fetch for themselves.
    pub waiters_max: usize,
    /// How long a request waits for another's fetch to show its head; then it fetches itself.
    pub wait_ms_max: u64,
}

impl Default for CoalesceConfig {
    fn default() -> Self {
        CoalesceConfig { waiters_max: 10_000, wait_ms_max: 10_000 }
    }
}

/// Log, access log, traces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TelemetryConfig {
    /// Form of the process log on stderr.
    pub log: LogConfig,
    /// The access log.
    pub access_log: AccessLogConfig,
    /// Traces. Absent: none.
    pub otlp: Option<OtlpConfig>,
}

/// Form of the process log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogConfig {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The access log. `off` is a word here, also where YAML would read it as a boolean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogConfig {
    /// None.
    #[default]
    Off,
    /// One JSON object per request on stdout.
    Stdout,
}

/// Traces over OTLP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OtlpConfig {
    /// The gRPC endpoint, such as `http://127.0.0.1:4317`.
    pub url: String,
    /// Share of requests without `traceparent` that are sampled, 0 to 100.
    #[serde(default = "all")]
    pub root_sample_percent: u8,
}

fn all() -> u8 {
    100
}

/// Shutdown.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LifecycleConfig {
    /// After SIGTERM, how long connections are still accepted while every response says
    /// `Connection: close`.
    pub drain_quiet_ms: u64,
    /// How long the shutdown may take in all.
    pub drain_timeout_ms: u64,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        LifecycleConfig { drain_quiet_ms: 1000, drain_timeout_ms: 25_000 }
    }
}

/// What `Cache-Status` tells.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheStatusConfig {
    /// Whether it tells the cache key. Keys can hold identities.
    pub key: bool,
}

/// A bootstrap document with the text it came from, so that errors found later can name a line.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The document, flags included.
    pub config: Config,
    file: Option<(String, String)>,
}

impl Loaded {
    /// Reads a document from text.
    ///
    /// # Errors
    /// When the text cannot be understood.
    pub fn from_text(source: &str, text: String) -> Result<Self, CliError> {
        let config =
            parse_yaml(source, &text).map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(Loaded { config, file: Some((source.to_owned(), text)) })
    }

    /// Turns the document into a plan.
    ///
    /// # Errors
    /// With the place in the file where it can be told, else with the field.
    pub fn plan(self) -> Result<Plan, CliError> {
        let Loaded { config, file } = self;
        build::plan(config).map_err(|error| {
            let placed = file.and_then(|(source, text)| {
                let position = locate(&text, &error.path)?;
                let found = Diagnostic::new(error.reason.as_str()).at(error.path.as_str());
                Some(found.in_source(source).on(Some(position)))
            });
            CliError::Usage(placed.map_or_else(|| error.to_string(), |placed| placed.to_string()))
        })
    }
}

fn listener(address: &str, mode: ModeConfig) -> ListenerConfig {
    ListenerConfig { address: address.to_owned(), mode }
}

/// Reads the bootstrap file and puts the flags over it.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn load(args: &RunArgs) -> Result<Loaded, CliError> {
    let mut loaded = match &args.config {
        None => Loaded::default(),
        Some(path) => {
            let source = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::Usage(format!("{source}: cannot read the bootstrap file: {error}"))
            })?;
            Loaded::from_text(&source, text)?
        }
    };
    let config = &mut loaded.config;
    if !args.listen.is_empty() {
        config.listeners =
            args.listen.iter().map(|address| listener(address, ModeConfig::Direct)).collect();
    }
    if !args.mode.is_empty() {
        if args.listen.is_empty() {
            config.listeners.clear();
        }
        let modes = args.mode.iter().map(|mode| listener(mode.address(), *mode));
        config.listeners.extend(modes);
    }
    if let Some(url) = &args.upstream {
        config.upstream.url = Some(url.clone());
        config.upstream.endpoints.clear();
    }
    if let Some(address) = &args.admin {
        config.admin.address = address.clone();
    }
    if let Some(address) = &args.metrics {
        config.admin.metrics_address = Some(address.clone());
    }
    if let Some(address) = &args.xds {
        config.policy.xds.get_or_insert_default().address = address.clone();
    }
    if let Some(dir) = &args.state_dir {
        config.policy.state_dir = Some(dir.clone());
    }
    if let Some(file) = &args.policy {
        config.policy.file = Some(file.clone());
    }
    if let Some(url) = &args.redis {
        match &mut config.redis {
            Some(redis) => redis.url = RedisUrl(url.clone()),
            None => config.redis = Some(RedisConfig::at(url)),
        }
    }
    if let Some(url) = &args.otlp {
        let root_sample_percent =
            config.telemetry.otlp.as_ref().map_or_else(all, |otlp| otlp.root_sample_percent);
        config.telemetry.otlp = Some(OtlpConfig { url: url.clone(), root_sample_percent });
    }
    Ok(loaded)
}
