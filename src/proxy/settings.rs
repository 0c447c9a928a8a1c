//! Limits of the data path, each with its unit in its name. Filled in from the bootstrap file.

use crate::mesh::MeshSettings;
use crate::upstream::UpstreamSettings;

/// Limits on client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Bytes of a request head.
    pub header_bytes_max: usize,
    /// Fields of a request head.
    pub header_count_max: usize,
    /// From the first byte of a request head to its last, milliseconds.
    pub header_read_ms_max: u64,
    /// Between requests, milliseconds.
    pub idle_ms_max: u64,
    /// Within a request body, milliseconds; HTTP/1 only.
    pub body_idle_ms_max: u64,
    /// For a client that does not take what it asked for, milliseconds.
    pub write_stall_ms_max: u64,
    /// Concurrent HTTP/2 streams of a connection.
    pub h2_streams_max: u32,
    /// Streams of a connection that may be reset before the connection is closed.
    pub h2_resets_max: usize,
    /// Bytes of an HTTP/2 header list.
    pub h2_header_list_bytes_max: u32,
}

/// All settings of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limits on client connections.
    pub limits: ConnectionLimits,
    /// The upstream.
    pub upstream: UpstreamSettings,
    /// The pod, for listeners to which Envoy sends requests.
    pub mesh: MeshSettings,
    /// Bytes of the memory tier.
    pub memory_bytes_max: u64,
    /// Bytes of one stored body.
    pub object_bytes_max: u64,
    /// Variants of one key.
    pub variants_max: usize,
    /// Requests that may wait for one fetch.
    pub waiters_max: usize,
    /// How long a request waits for another's fetch to show its head, milliseconds.
    pub wait_ms_max: u64,
    /// Worker threads.
    pub workers: usize,
    /// Whether `Cache-Status` tells the key.
    pub show_key: bool,
}
