//! Which fetches are under way, by key.

use std::collections::HashMap;

use outrigger_coherence::Seq;

use crate::coalesce::flight::{Flight, Producer, Reader};
use crate::sync::{Arc, Mutex, MutexGuard, lock};

const SHARDS: usize = 16;

/// What is fetched: the digest of the cache key, and a hint that tells variants apart once it is
/// known that the response varies.
pub(crate) type FlightKey = (u128, u64);

type Shard = HashMap<FlightKey, Arc<Flight>>;

/// All fetches under way that can be joined.
#[derive(Debug, Default)]
pub(crate) struct FlightTable {
    shards: [Mutex<Shard>; SHARDS],
}

/// The part of a request in a fetch.
#[derive(Debug)]
pub(crate) enum Role {
    /// It fetches, and reads like the others.
    Leader(Listed, Reader),
    /// It waits for another's fetch.
    Waiter(Reader),
    /// There are too many waiters already, or the fetch can no longer be joined.
    Alone,
}

/// A producer that others can find; leaving the table is part of its drop.
#[derive(Debug)]
pub(crate) struct Listed {
    producer: Producer,
    place: Option<(Arc<FlightTable>, FlightKey)>,
}

impl std::ops::Deref for Listed {
    type Target = Producer;
    fn deref(&self) -> &Producer {
        &self.producer
    }
}

impl Listed {
    /// A producer that nobody else can find, with its one reader.
    pub(crate) fn private(born_seq: Seq) -> (Self, Option<Reader>) {
        let producer = Producer::new(false, born_seq);
        let reader = producer.flight().join(1);
        (Listed { producer, place: None }, reader)
    }

    /// Whether others can find it.
    pub(crate) fn is_listed(&self) -> bool {
        self.place.is_some()
    }

    /// Takes the fetch out of the table, so that nobody joins any more.
    pub(crate) fn unlist(&mut self) {
        if let Some((table, key)) = self.place.take() {
            let mut shard = table.shard(key);
            if shard.get(&key).is_some_and(|have| Arc::ptr_eq(have, self.producer.flight())) {
                shard.remove(&key);
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.unlist();
    }
}

impl FlightTable {
    fn shard(&self, key: FlightKey) -> MutexGuard<'_, Shard> {
        let at = (key.0 as usize ^ key.1 as usize) % SHARDS;
        lock(&self.shards[at])
    }

    /// Joins the fetch for a key, or begins it at the purge log's position `applied`. A fetch that
    /// is `overtaken` is not joined: what it brings may be what was purged.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: FlightKey,
        readers_max: usize,
        applied: Seq,
        overtaken: impl Fn(&Flight) -> bool,
    ) -> Role {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(&key).filter(|flight| !overtaken(flight)) {
            return flight.join(readers_max).map_or(Role::Alone, Role::Waiter);
        }
        let producer = Producer::new(false, applied);
        let Some(reader) = producer.flight().join(usize::MAX) else { return Role::Alone };
        shard.insert(key, Arc::clone(producer.flight()));
        drop(shard);
        Role::Leader(Listed { producer, place: Some((Arc::clone(self), key)) }, reader)
    }

    /// Begins a refresh for a key that goes on without readers, unless a fetch is under way.
    pub(crate) fn begin_refresh(self: &Arc<Self>, key: FlightKey, applied: Seq) -> Option<Listed> {
        let mut shard = self.shard(key);
        if shard.contains_key(&key) {
            return None;
        }
        let producer = Producer::new(true, applied);
        shard.insert(key, Arc::clone(producer.flight()));
        drop(shard);
        Some(Listed { producer, place: Some((Arc::clone(self), key)) })
    }

    /// Number of fetches under way.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}
