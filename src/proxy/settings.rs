//! Settings of the data path, each with its unit in its name.
//!
//! Sections of the bootstrap file that reach the data path as they are written are defined here, once,
//! with the names and defaults that the file has. The composition reads the file; nothing here does.

use outrigger_policy::values::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mesh::MeshSettings;
use crate::upstream::UpstreamSettings;

/// Limits on client connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "LimitsConfig")]
pub struct ConnectionLimits {
    /// Bytes of a request head, at least 8192.
    pub header_bytes_max: usize,
    /// Fields of a request head.
    pub header_count_max: usize,
    /// Longest time from the first byte of a request head to its last.
    pub header_read_timeout_ms: u64,
    /// Longest pause between two requests of a connection.
    pub idle_timeout_ms: u64,
    /// Longest pause within a request body, HTTP/1 only.
    pub body_idle_timeout_ms: u64,
    /// Longest time that a client may take none of the response it asked for.
    pub write_stall_timeout_ms: u64,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_streams_max: u32,
    /// HTTP/2 streams that may be reset before the connection is closed.
    pub h2_resets_max: usize,
    /// Bytes of an HTTP/2 header list.
    pub h2_header_list_bytes_max: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(rename = "CoalesceConfig")]
pub struct CoalesceSettings {
    /// Requests that may wait for one fetch; further ones fetch for themselves.
    pub waiters_max: usize,
    /// How long a request waits for another's fetch to show its head. Then, of all who have waited as
    /// long, one fetches for the others, who wait once more and at last fetch for themselves.
    /// A route may say another time.
    pub wait_ms_max: u64,
    /// Fetches that go on although all their clients have left, so that the next client finds the
    /// response stored. Further ones end with their last client; so do all with 0.
    pub unread_max: usize,
    /// How long such a fetch goes on.
    pub unread_ms_max: u64,
    /// Bytes that all of them together hold.
    pub unread_bytes_max: ByteSize,
}

impl Default for CoalesceSettings {
    fn default() -> Self {
        CoalesceSettings {
            waiters_max: 10_000,
            wait_ms_max: 10_000,
            unread_max: 64,
            unread_ms_max: 30_000,
            unread_bytes_max: ByteSize(64 << 20),
        }
    }
}

/// All settings of the data path. Values that the bootstrap file may leave to the machine, such as
/// the bytes of the memory tier and the number of workers, are resolved here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limits on client connections.
    pub limits: ConnectionLimits,
    /// How the upstream is reached.
    pub upstream: UpstreamSettings,
    /// What is known of the pod, for listeners to which Envoy sends requests.
    pub mesh: MeshSettings,
    /// Bytes of the memory tier.
    pub memory_bytes_max: u64,
    /// Bytes of one stored body.
    pub object_bytes_max: u64,
    /// Stored variants of one key.
    pub variants_max: usize,
    /// Collapsing of concurrent misses.
    pub coalesce: CoalesceSettings,
    /// Worker threads, which carry client traffic.
    pub workers: usize,
    /// Whether `Cache-Status` shows the cache key, which can hold identities.
    pub show_key: bool,
}
