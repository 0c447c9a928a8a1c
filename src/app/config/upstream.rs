//! The upstream's section of the bootstrap file. What the data path takes as it is written is defined
//! there; here is what has to be resolved first.

use std::path::PathBuf;

use outrigger_proxy::{
    Balance, EjectionSettings, HealthCheckSettings, HostHeader, PoolSettings, Timeouts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The service that requests are forwarded to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct UpstreamConfig {
    /// `http://host:port`, `https://host`, `h2c://host:port` or `unix:/path`.
    pub url: Option<String>,
    /// Several endpoints in place of the URL's own: `host:port` or `unix:/path`.
    pub endpoints: Vec<String>,
    /// Choice among several endpoints.
    pub balance: Balance,
    /// `Host` of upstream requests.
    pub host_header: HostHeader,
    /// TLS, for an `https` URL.
    pub tls: TlsConfig,
    /// Active health checks. Absent: none.
    pub health_check: Option<HealthCheckSettings>,
    /// Leaving out endpoints to which requests fail, where there are several.
    pub ejection: EjectionSettings,
    /// Deadlines of requests to the upstream, where the route has none of its own.
    pub timeouts: Timeouts,
    /// Idle upstream connections.
    pub pool: PoolSettings,
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
