//! How the upstream is reached.
//!
//! Sections of the bootstrap file that reach the data path as they are written are defined here, once,
//! with the names and defaults that the file has: balance, `Host`, health checks, ejection, deadlines,
//! idle connections. [`UpstreamSettings`] and [`TlsSettings`] are resolved from more than one of its
//! values, so that the file has types of its own for them.

use std::num::NonZeroU32;
use std::path::PathBuf;

use outrigger_policy::values::Percent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address with a port.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which protocol is spoken to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Always HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge on plain connections.
    Http2,
    /// Over TLS whatever ALPN yields, HTTP/2 preferred; otherwise HTTP/1.1.
    Auto,
}

/// Choice among several endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "BalanceConfig")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By cache key, so that each endpoint sees its own share of the keys.
    ConsistentHash,
}

/// The `Host` of requests to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HostHeaderConfig")]
pub enum HostHeader {
    /// What the client has sent.
    #[default]
    Preserve,
    /// Host and port of the upstream URL.
    Upstream,
}

/// Active health checks of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "HealthCheckConfig")]
pub struct HealthCheckSettings {
    /// Path of an HTTP check that must answer 200. Absent: a TCP connection is the check.
    pub path: Option<String>,
    /// Pause between two checks.
    pub interval_ms: u64,
    /// Longest time for one check.
    pub timeout_ms: u64,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: usize,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: usize,
}

impl Default for HealthCheckSettings {
    fn default() -> Self {
        HealthCheckSettings {
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "EjectionConfig")]
pub struct EjectionSettings {
    /// Whether endpoints are left out for failures.
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

impl Default for EjectionSettings {
    fn default() -> Self {
        EjectionSettings {
            enabled: true,
            consecutive_failures: NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN),
            eject_for_ms: 5000,
            eject_ms_max: 60_000,
            ejected_percent_max: Percent(50),
            panic_percent: Percent(50),
        }
    }
}

/// TLS towards the upstream, resolved: the bootstrap file may leave the name to the URL, and without
/// a name no certificate can be verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The name that the certificate must carry.
    pub server_name: String,
    /// Trust these certificates (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Deadlines for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "TimeoutsConfig")]
pub struct Timeouts {
    /// Longest time for a TCP connection.
    pub connect_ms: u64,
    /// Longest time for a TLS handshake.
    pub tls_ms: u64,
    /// Longest time from the end of the request to the response head.
    pub first_byte_ms: u64,
    /// Longest pause within a response body.
    pub between_bytes_ms: u64,
    /// Longest time for the whole exchange. Absent: no limit.
    pub total_ms: Option<u64>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect_ms: 1000,
            tls_ms: 2000,
            first_byte_ms: 60_000,
            between_bytes_ms: 300_000,
            total_ms: None,
        }
    }
}

/// Idle connections to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "PoolConfig")]
pub struct PoolSettings {
    /// Connections kept, over all workers.
    pub idle_connections_max: usize,
    /// They are closed after this. Keep it below the upstream's own limit.
    pub idle_ms: u64,
}

impl Default for PoolSettings {
    fn default() -> Self {
        PoolSettings { idle_connections_max: 512, idle_ms: 4000 }
    }
}

/// All about the upstream, resolved: its URL into endpoints, protocol, authority and TLS, and the
/// limits on client connections into those on responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Where to connect to. None where each request names its destination.
    pub endpoints: Vec<Address>,
    /// Present when TLS is spoken.
    pub tls: Option<TlsSettings>,
    /// Which protocol is spoken.
    pub protocol: Protocol,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// `Host` of upstream requests.
    pub host_header: HostHeader,
    /// Authority of the upstream, for [`HostHeader::Upstream`].
    pub authority: String,
    /// Active health checks; none with `None`.
    pub health_check: Option<HealthCheckSettings>,
    /// Leaving out endpoints to which requests fail.
    pub ejection: EjectionSettings,
    /// Deadlines, where the route has none of its own.
    pub timeouts: Timeouts,
    /// How many idle connections are kept, and for how long.
    pub pool: PoolSettings,
    /// Header fields that a response may have.
    pub header_count_max: usize,
    /// Bytes that a response head may have.
    pub header_bytes_max: usize,
}
