//! A client's connection, as far as the stages of a request know it.
//!
//! `serve` makes these values when it accepts a connection and `pipeline` reads them, so that
//! neither has to know the other's types. Reading and writing the connection is `serve`'s part.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use http::Version;
use outrigger_policy::Side;

use crate::headers::Client;
use crate::interim::InterimQueue;
use crate::state::Shared;

/// A connection on which requests come in.
#[derive(Clone, Debug)]
pub(crate) struct ClientConnection {
    /// Address of the other end; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// Side of the pod that its listener serves; `None` for a direct listener.
    pub(crate) side: Option<Side>,
    /// `None` on HTTP/2 connections.
    pub(crate) http1: Option<Arc<Http1>>,
}

/// What the stages of a request and the stream below hyper tell each other about an HTTP/1.1
/// connection.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    /// 1xx responses that wait to be written.
    pub(crate) interim: InterimQueue,
    /// Request bodies that have not been read to their end. Without one, what comes between two
    /// requests is the head of the next.
    pub(crate) unread: Arc<AtomicUsize>,
    /// Whether a response to HTTP/1.0 is about to be written.
    pub(crate) answers_old: AtomicBool,
    /// The status with which a head that hyper could not read has been refused; 0 if none was.
    pub(crate) refused: AtomicU16,
}

impl ClientConnection {
    /// A hash of the address that tells clients apart; `None` on a Unix socket.
    pub(crate) fn address_hash(&self) -> Option<u64> {
        self.ip.map(|ip| BuildHasherDefault::<DefaultHasher>::default().hash_one(ip))
    }

    /// The client as the forwarding header fields describe it.
    pub(crate) fn client(&self, version: Version) -> Client {
        Client { ip: self.ip, version, side: self.side }
    }
}

/// Counts a connection or a tunnel as open for as long as this value lives; a drain waits for the
/// count to reach zero.
pub(crate) struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    pub(crate) fn count(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::AcqRel);
        shared.metrics.connections.inc();
        OpenConnection(Arc::clone(shared))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.connections.dec();
    }
}
