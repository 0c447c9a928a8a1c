//! The upstream's part of the bootstrap file.

use std::num::NonZeroU32;
use std::path::PathBuf;

use outrigger_policy::values::Percent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The upstream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct UpstreamConfig {
    /// `http://host:port`, `https://host`, `h2c://host:port` or `unix:/path`.
    pub url: Option<String>,
    /// Several endpoints in place of the URL's own: `host:port` or `unix:/path`.
    pub endpoints: Vec<String>,
    /// Choice among several endpoints.
    pub balance: BalanceConfig,
    /// `Host` of upstream requests.
    pub host_header: HostHeaderConfig,
    /// TLS, for an `https` URL.
    pub tls: TlsConfig,
    /// Active health checks. Absent: none.
    pub health_check: Option<HealthCheckConfig>,
    /// Leaving out endpoints to which requests fail, where there are several.
    pub ejection: EjectionConfig,
    /// Deadlines.
    pub timeouts: TimeoutsConfig,
    /// Idle connections.
    pub pool: PoolConfig,
}

/// Choice among several endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BalanceConfig {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By cache key.
    ConsistentHash,
}

/// `Host` of upstream requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HostHeaderConfig {
    /// The client's.
    #[default]
    Preserve,
    /// The upstream URL's.
    Upstream,
}

/// TLS towards the upstream. Certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TlsConfig {
    /// The name that the certificate must carry. Absent: the URL's host.
    pub server_name: Option<String>,
    /// Trust these certificates (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HealthCheckConfig {
    /// Path of an HTTP check that must answer 200. Absent: a TCP connection is the check.
    pub path: Option<String>,
    /// Pause between checks.
    pub interval_ms: u64,
    /// Longest time for one check.
    pub timeout_ms: u64,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: usize,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: usize,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        HealthCheckConfig {
            path: None,
            interval_ms: 5000,
            timeout_ms: 1000,
            healthy_after: 1,
            unhealthy_after: 2,
        }
    }
}

/// Leaving out endpoints to which requests fail. What counts as failure is policy
/// (`guard.breaker.failures`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct EjectionConfig {
    /// Whether it is done.
    pub enabled: bool,
    /// Failures in a row that eject an endpoint.
    pub consecutive_failures: NonZeroU32,
    /// For how long the first time, up to a fifth longer by chance. It doubles each time that the
    /// first request afterwards fails.
    pub eject_for_ms: u64,
    /// For how long at most.
    pub eject_ms_max: u64,
    /// Share of the endpoints that may be ejected at a time; of two or more at least one may be.
    pub ejected_percent_max: Percent,
    /// With a smaller share of usable endpoints than this, all are used, whatever their checks and
    /// failures say: the few that are left would only be overrun.
    pub panic_percent: Percent,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        EjectionConfig {
            enabled: true,
            consecutive_failures: NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN),
            eject_for_ms: 5000,
            eject_ms_max: 60_000,
            ejected_percent_max: Percent(50),
            panic_percent: Percent(50),
        }
    }
}

/// Deadlines for the upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TimeoutsConfig {
    /// TCP connection.
    pub connect_ms: u64,
    /// TLS handshake.
    pub tls_ms: u64,
    /// End of the request to response head.
    pub first_byte_ms: u64,
    /// Longest pause within a response body.
    pub between_bytes_ms: u64,
    /// Whole exchange. Absent: no limit.
    pub total_ms: Option<u64>,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        TimeoutsConfig {
            connect_ms: 1000,
            tls_ms: 2000,
            first_byte_ms: 60_000,
            between_bytes_ms: 300_000,
            total_ms: None,
        }
    }
}

/// Idle upstream connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PoolConfig {
    /// Connections kept, over all workers.
    pub idle_connections_max: usize,
    /// They are closed after this. Keep it below the upstream's own limit.
    pub idle_ms: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig { idle_connections_max: 512, idle_ms: 4000 }
    }
}
