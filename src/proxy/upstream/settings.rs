//! How the upstream is reached. Filled in from the bootstrap file.

use std::path::PathBuf;

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address with a port.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
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
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge on plain connections.
    Http2,
    /// Over TLS whatever ALPN yields, HTTP/2 preferred; otherwise HTTP/1.1.
    Auto,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// By the cache key, so that each endpoint sees its own share of the keys.
    ConsistentHash,
}

/// What the `Host` of upstream requests is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The upstream's.
    Upstream,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckSettings {
    /// Path of an HTTP check; without one, a TCP connection is the check.
    pub path: Option<String>,
    /// Pause between checks, milliseconds.
    pub interval_ms: u64,
    /// Longest time for one check, milliseconds.
    pub timeout_ms: u64,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: usize,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: usize,
}

/// Leaving out endpoints whose requests fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionSettings {
    /// Failures in a row that eject an endpoint.
    pub consecutive_failures: u32,
    /// For how long the first time, milliseconds; it doubles.
    pub eject_for_ms: u64,
    /// For how long at most, milliseconds.
    pub eject_ms_max: u64,
    /// Percent of the endpoints that may be ejected at a time.
    pub ejected_percent_max: u8,
    /// With a smaller percentage of usable endpoints than this, all are used.
    pub panic_percent: u8,
}

/// TLS towards the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The name that the certificate must carry.
    pub server_name: String,
    /// Trust these certificates (PEM) instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Deadlines, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connection.
    pub connect_ms: u64,
    /// TCP connection and TLS handshake together are allowed this much more.
    pub tls_ms: u64,
    /// Request to response head.
    pub first_byte_ms: u64,
    /// Longest pause within a body.
    pub between_bytes_ms: u64,
    /// Request to end of response; `None` for no limit.
    pub total_ms: Option<u64>,
}

/// All about the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Endpoints.
    pub endpoints: Vec<Address>,
    /// Present when TLS is spoken.
    pub tls: Option<TlsSettings>,
    /// Protocol.
    pub protocol: Protocol,
    /// Choice of endpoint.
    pub balance: Balance,
    /// `Host` of upstream requests.
    pub host_header: HostHeader,
    /// Authority of the upstream, for [`HostHeader::Upstream`].
    pub authority: String,
    /// Active health checks; none with `None`.
    pub health_check: Option<HealthCheckSettings>,
    /// Ejection of endpoints; none with `None`.
    pub ejection: Option<EjectionSettings>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Idle connections kept, over all workers.
    pub idle_connections_max: usize,
    /// Idle connections are closed after this, milliseconds.
    pub idle_ms: u64,
    /// Header fields that a response may have.
    pub header_count_max: usize,
    /// Bytes that a response head may have.
    pub header_bytes_max: usize,
}
