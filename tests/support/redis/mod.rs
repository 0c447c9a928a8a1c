//! Real Redis servers as child processes: a single one, Sentinel with a master
//! and two replicas, a cluster of six, and a TCP proxy that makes any of them
//! slow or unreachable.
//!
//! Every server has its own port and folder, keeps nothing on disk, and is
//! killed by its pid when dropped.

mod cluster;
mod sentinel;
mod server;
mod slow;
mod tls;

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;
pub use server::{Builder, RedisServer};
pub use slow::SlowProxy;
pub use tls::Authority;
