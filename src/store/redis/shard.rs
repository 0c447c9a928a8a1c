//! One server (or cluster) of the shared tier: its links, its health, and reading from it.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use outrigger_redis::client;
use outrigger_redis::{Conn, Health, HealthSettings, Link, Target};
use tokio::time::Instant;

use super::counts::{Counts, LookupResult};
use super::write::Queue;
use crate::lookup::Unavailable;

thread_local! {
    /// The worker that runs on this thread.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Tells this thread which worker it is.
pub(super) fn set_worker(worker: usize) {
    WORKER.with(|cell| cell.set(Some(worker)));
}

/// One server of the tier.
pub(super) struct Shard {
    pub(super) health: Arc<Health>,
    /// For writes, probes, and whoever is no worker.
    pub(super) link: Link,
    /// One for each worker, on the worker's own runtime.
    links: Vec<OnceLock<Link>>,
    pub(super) queue: Queue,
}

impl Shard {
    /// Starts watching a server on the current runtime.
    pub(super) fn start(target: Arc<Target>, health: HealthSettings, workers: usize) -> Arc<Self> {
        let health = Health::new(health);
        let link = Link::start(target);
        health.follow(&link);
        tokio::spawn(Arc::clone(&health).watch(link.clone()));
        Arc::new(Shard {
            health,
            link,
            links: std::iter::repeat_with(OnceLock::new).take(workers).collect(),
            queue: Queue::default(),
        })
    }

    /// Opens this worker's link on the current runtime.
    pub(super) fn attach(&self, worker: usize) {
        if let Some(place) = self.links.get(worker) {
            place.get_or_init(|| {
                let link = Link::start(Arc::clone(self.link.target()));
                self.health.follow(&link);
                link
            });
        }
    }

    /// Whether every worker has a connection.
    pub(super) fn is_attached(&self) -> bool {
        self.links.iter().all(|link| link.get().is_some_and(|link| link.conn().is_some()))
    }

    /// The link for whoever asks.
    fn link(&self) -> &Link {
        let worker = WORKER.with(Cell::get);
        worker.and_then(|worker| self.links.get(worker)?.get()).unwrap_or(&self.link)
    }

    /// A connection, if the server can be used, with its link.
    pub(super) fn usable(&self) -> Result<(Conn, &Link), Unavailable> {
        if self.health.is_down() {
            return Err(Unavailable::Breaker);
        }
        let link = self.link();
        link.conn().map(|conn| (conn, link)).ok_or(Unavailable::Error)
    }

    /// The bytes under a name, if there are not more than `bytes_max`: what is larger is not ours,
    /// and would keep others waiting behind it.
    pub(super) async fn get(
        &self,
        name: &[u8],
        bytes_max: usize,
        until: Instant,
        counts: &Counts,
    ) -> Result<Bytes, Unavailable> {
        let (mut conn, link) = self.usable().inspect_err(|why| {
            counts.lookup(match why {
                Unavailable::Breaker => LookupResult::Breaker,
                _ => LookupResult::Error,
            });
        })?;
        let watched = Pending { shard: self, counts, until };
        let mut cmd = client::cmd("GETRANGE");
        cmd.arg(name).arg(0).arg(bytes_max);
        let answered = cmd.query_async::<Vec<u8>>(&mut conn).await;
        std::mem::forget(watched);
        match answered {
            Ok(value) => {
                self.health.succeeded();
                // GETRANGE counts the last byte in: one more than may be there says enough.
                Ok(match value.len() {
                    0 => Bytes::Absent,
                    length if length > bytes_max => Bytes::Foreign,
                    _ => Bytes::Found(value),
                })
            }
            // Something that is no string: not ours.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Bytes::Foreign),
            Err(error) => {
                counts.lookup(LookupResult::Error);
                self.health.failed(&error);
                link.note(&error);
                Err(Unavailable::Error)
            }
        }
    }
}

/// What stands under a name.
pub(super) enum Bytes {
    Found(Vec<u8>),
    Absent,
    Foreign,
}

/// A question under way. It is dropped when its deadline has passed, or when the client has gone.
struct Pending<'a> {
    shard: &'a Shard,
    counts: &'a Counts,
    until: Instant,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if Instant::now() >= self.until {
            self.counts.lookup(LookupResult::Deadline);
            self.shard.health.timed_out();
        }
    }
}
