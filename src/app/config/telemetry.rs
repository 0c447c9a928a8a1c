//! What the process reports: log, access log and traces. Metrics are always there.

use outrigger_telemetry::logging::LogFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Log, access log, traces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TelemetryConfig {
    /// Form of the process log on stderr.
    pub log: LogFormat,
    /// Where requests are logged.
    pub access_log: AccessLogConfig,
    /// Where traces are sent. Absent: none are made.
    pub otlp: Option<OtlpConfig>,
}

/// The access log. `off` is a word here, also where YAML would read it as a boolean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogConfig {
    /// Requests are not logged.
    #[default]
    Off,
    /// One JSON object per request on stdout.
    Stdout,
}

/// Where traces are sent, over OTLP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OtlpConfig {
    /// The gRPC endpoint, such as `http://127.0.0.1:4317`.
    pub url: String,
    /// Share of requests without `traceparent` that are sampled, 0 to 100.
    #[serde(default = "root_sample_percent")]
    pub root_sample_percent: u8,
}

fn root_sample_percent() -> u8 {
    100
}

impl OtlpConfig {
    /// Defaults for an endpoint.
    pub fn at(url: &str) -> Self {
        OtlpConfig { url: url.to_owned(), root_sample_percent: root_sample_percent() }
    }
}
