//! The bootstrap document: what needs a restart to change, as the operator writes it. Flags and
//! environment win over it. Nothing here reads a file or judges a value beyond its form: `load` does
//! the one, `build` the other.

mod flags;
mod listener;
mod mesh;
mod redis;
mod telemetry;
mod upstream;

use std::path::PathBuf;

use outrigger_policy::values::ByteSize;
use outrigger_proxy::{CoalesceSettings, ConnectionLimits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use flags::RunArgs;
pub(crate) use flags::side_parser;
pub use listener::ListenerConfig;
pub use mesh::{MeshConfig, XdsConfig};
pub use redis::{RedisConfig, RedisUrl};
pub use telemetry::{AccessLogConfig, OtlpConfig, TelemetryConfig};
pub use upstream::{TlsConfig, UpstreamConfig};

/// The bootstrap document. Units are in values (sizes) or in names (times).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(title = "Outrigger bootstrap")]
pub struct Config {
    /// Where to listen. Absent: 127.0.0.1:15480.
    pub listeners: Vec<ListenerConfig>,
    /// The service that requests are forwarded to.
    pub upstream: UpstreamConfig,
    /// The admin port: health, metrics, explanations, purges.
    pub admin: AdminConfig,
    /// The memory tier: bounds of what this process stores.
    pub memory: MemoryConfig,
    /// Redis: the tier and the purge log that pods share. Absent: neither.
    pub redis: Option<RedisConfig>,
    /// Identity of this pod, in a mesh.
    pub mesh: MeshConfig,
    /// Where policy comes from.
    pub policy: PolicyConfig,
    /// Limits on client connections.
    pub limits: ConnectionLimits,
    /// Collapsing of concurrent misses.
    pub coalesce: CoalesceSettings,
    /// Log, access log, traces.
    pub telemetry: TelemetryConfig,
    /// Time limits of the shutdown.
    pub lifecycle: LifecycleConfig,
    /// What the header field `Cache-Status` shows.
    pub cache_status: CacheStatusConfig,
    /// Worker threads. Absent: as many as there are cores for this process.
    pub workers: Option<usize>,
}

/// The admin port: health, metrics, explanations, purges.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AdminConfig {
    /// `ADDRESS:PORT`. It has no authentication: keep it on loopback.
    pub address: String,
    /// `ADDRESS:PORT` of a second, read-only port: `/metrics`, `/healthz` and `/readyz`. It
    /// may be reached from outside the pod. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { address: "127.0.0.1:15490".to_owned(), metrics_address: None }
    }
}

/// The memory tier: bounds of what this process stores.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MemoryConfig {
    /// Bytes of stored responses, index included. Absent: a quarter of the memory limit.
    pub bytes_max: Option<ByteSize>,
    /// Bytes of one stored body.
    pub object_bytes_max: ByteSize,
    /// Variants of one key. Beyond that the one that was asked for least makes room.
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

/// Time limits of the shutdown.
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

/// What the header field `Cache-Status` shows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CacheStatusConfig {
    /// Whether it shows the cache key, which can hold identities.
    pub key: bool,
}
