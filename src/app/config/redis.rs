//! The `redis` section of the bootstrap file.

use std::fmt;
use std::path::PathBuf;

use outrigger_policy::values::ByteSize;
use outrigger_redis::TlsFiles;
use outrigger_store::envelope::Compression;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Redis: the tier and the purge log that pods share. Absent: neither.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RedisConfig {
    /// `redis://host:port`, `rediss://host:port` (TLS), `unix:/path`, several servers as
    /// `redis://host1:port,host2:port`, `redis+sentinel://host1:port,host2:port/master`, or
    /// `redis+cluster://host1:port,host2:port`.
    pub url: RedisUrl,
    /// User name in the access control list of Redis. Absent: its default user.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password, read for each connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Credentials of the sentinels themselves.
    #[serde(default)]
    pub sentinel: SentinelConfig,
    /// Certificates and key for TLS, where the URL asks for it.
    #[serde(default)]
    pub tls: TlsFiles,
    /// Namespace of this workload. Absent: that of the pod (`mesh.namespace`).
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name of this workload. Absent: `OUTRIGGER_WORKLOAD`, else what the pod's labels say
    /// (`service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`), else the pod's name
    /// without its random end, else `default`.
    #[serde(default)]
    pub workload: Option<String>,
    /// Name of this pod in acknowledgements. Absent: `mesh.podName`, else a random token.
    #[serde(default)]
    pub pod: Option<String>,
    /// Longest time for a lookup.
    #[serde(default = "read_timeout_ms")]
    pub read_timeout_ms: u64,
    /// Longest time for a batch of writes, which no request waits for.
    #[serde(default = "write_timeout_ms")]
    pub write_timeout_ms: u64,
    /// Longest time for a connection.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Bytes that may wait to be written; what comes on top is dropped.
    #[serde(default = "write_queue_bytes_max")]
    pub write_queue_bytes_max: ByteSize,
    /// Larger bodies stay in the pod's memory.
    #[serde(default = "object_bytes_max")]
    pub object_bytes_max: ByteSize,
    /// Responses with a shorter lifetime stay in the pod's memory.
    #[serde(default = "min_ttl_ms")]
    pub min_ttl_ms: u64,
    /// Bytes that the namespace may store. Absent: no bound but Redis' own.
    #[serde(default)]
    pub quota: Option<ByteSize>,
    /// How values are compressed before they are written.
    #[serde(default)]
    pub compression: CompressionConfig,
    /// Encryption of values. Absent: none.
    #[serde(default)]
    pub seal: Option<SealConfig>,
    /// When Redis counts as down, and how often it is tried then.
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// One fetch for all pods.
    #[serde(default)]
    pub single_flight: SingleFlightConfig,
    /// Loading the hottest keys at the start.
    #[serde(default)]
    pub warm_start: WarmStartConfig,
    /// The purge log, which tells all pods what to purge.
    #[serde(default)]
    pub log: LogConfig,
}

fn read_timeout_ms() -> u64 {
    5
}
fn write_timeout_ms() -> u64 {
    250
}
fn connect_timeout_ms() -> u64 {
    250
}
fn write_queue_bytes_max() -> ByteSize {
    ByteSize(8 << 20)
}
fn object_bytes_max() -> ByteSize {
    ByteSize(1 << 20)
}
fn min_ttl_ms() -> u64 {
    1000
}

impl RedisConfig {
    /// Defaults for a URL.
    pub fn at(url: &str) -> Self {
        RedisConfig {
            url: RedisUrl(url.to_owned()),
            username: None,
            password_file: None,
            sentinel: SentinelConfig::default(),
            tls: TlsFiles::default(),
            namespace: None,
            workload: None,
            pod: None,
            read_timeout_ms: read_timeout_ms(),
            write_timeout_ms: write_timeout_ms(),
            connect_timeout_ms: connect_timeout_ms(),
            write_queue_bytes_max: write_queue_bytes_max(),
            object_bytes_max: object_bytes_max(),
            min_ttl_ms: min_ttl_ms(),
            quota: None,
            compression: CompressionConfig::default(),
            seal: None,
            breaker: BreakerConfig::default(),
            single_flight: SingleFlightConfig::default(),
            warm_start: WarmStartConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// A URL that may hold a password, which is never printed.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisUrl(pub String);

impl RedisUrl {
    fn redacted(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
            _ => self.0.clone(),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

/// Credentials of the sentinels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SentinelConfig {
    /// User name at the sentinels. Absent: their default user.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// How values are compressed before they are written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CompressionConfig {
    /// How values are written. All kinds are read.
    pub algorithm: Compression,
    /// Smaller values are not compressed.
    pub min_bytes: ByteSize,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        CompressionConfig { algorithm: Compression::Lz4, min_bytes: ByteSize(1 << 10) }
    }
}

/// Encryption of values with AES-256-GCM.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SealConfig {
    /// Folder with files `<number>.key`: 32 bytes, 64 hexadecimal digits, or their base64. The
    /// highest number seals, unless a file `active` names another; all open. Reloaded when changed.
    pub directory: PathBuf,
}

/// When Redis counts as down, and how often it is tried then.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BreakerConfig {
    /// Failures in a row after which Redis is not asked any more, if they go on for two deadlines.
    pub failures: u32,
    /// First pause between probes.
    pub open_ms: u64,
    /// Longest pause between probes.
    pub open_ms_max: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig { failures: 5, open_ms: 200, open_ms_max: 5000 }
    }
}

/// One fetch for all pods.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SingleFlightConfig {
    /// Of many pods that miss the same key at once, one goes to the upstream.
    pub enabled: bool,
    /// How long a request waits for another pod; then it goes itself.
    pub wait_ms_max: u64,
}

impl Default for SingleFlightConfig {
    fn default() -> Self {
        SingleFlightConfig { enabled: false, wait_ms_max: 1000 }
    }
}

/// Loading the hottest keys at the start.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct WarmStartConfig {
    /// Keys to load; 0 for none.
    pub keys_max: usize,
    /// Bytes of bodies to load.
    pub bytes_max: ByteSize,
    /// Keys that are loaded in a second, at most.
    pub keys_per_second: u32,
    /// Whether the pod becomes ready only when it is warm, or the time is up.
    pub before_ready: bool,
    /// Longest time that loading may take.
    pub timeout_ms: u64,
}

impl Default for WarmStartConfig {
    fn default() -> Self {
        WarmStartConfig {
            keys_max: 1000,
            bytes_max: ByteSize(32 << 20),
            keys_per_second: 5000,
            before_ready: false,
            timeout_ms: 3000,
        }
    }
}

/// The purge log, which tells all pods what to purge.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LogConfig {
    /// Whether purges are shared. If not, each pod must be purged.
    pub enabled: bool,
    /// Events kept. A pod that was away for longer starts with an empty store.
    pub events_max: u64,
    /// How long a silent pod is waited for, and may serve where consistency is strong.
    pub lease_ms: u64,
    /// Longest time for appending an event.
    pub append_timeout_ms: u64,
    /// Whether a Redis that was restarted, or took over from another, is trusted to have lost no
    /// event. If not, what was stored before is invalid then.
    pub trust_fail_over: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            enabled: true,
            events_max: 100_000,
            lease_ms: 2000,
            append_timeout_ms: 250,
            trust_fail_over: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let url = RedisUrl("rediss://cart:p@ss@r.svc:1/2".to_owned());
        assert_eq!(serde_json::to_string(&url).unwrap(), "\"rediss://***@r.svc:1/2\"");
        assert!(!format!("{:?}", RedisConfig::at(&url.0)).contains("p@ss"));
    }
}
