//! Client connections: listeners, worker threads, and HTTP/1.1 and HTTP/2 on one port.
//!
//! One acceptor hands connections in turn to worker threads, each with a single-threaded runtime
//! of its own. Measured against one multi-threaded runtime and against a listener per core; the
//! numbers are in `src/decisions/001-one-runtime-per-worker.md`.

mod connection;
mod io;
mod listen;
mod watch;
mod workers;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::Arc;

use http::Version;

use crate::headers::Client;
use crate::mesh::Mode;

pub(crate) use io::InterimQueue;
pub use listen::{Bound, ListenAddress, ListenError, bind};
pub(crate) use workers::Open;
pub use workers::{Running, run};

/// The other side of a client connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    ip: Option<IpAddr>,
    pub(crate) mode: Mode,
    /// Present on HTTP/1 connections: where 1xx responses are written.
    pub(crate) interim: Option<Arc<InterimQueue>>,
}

impl Peer {
    /// Tells clients apart by their address; `None` on a Unix socket.
    pub(crate) fn address_hash(&self) -> Option<u64> {
        self.ip.map(|ip| BuildHasherDefault::<DefaultHasher>::default().hash_one(ip))
    }

    /// What the forwarding fields say about the client.
    pub(crate) fn client(&self, version: Version) -> Client {
        Client { ip: self.ip, version, mode: self.mode }
    }
}
