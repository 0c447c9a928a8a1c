//! The fetches under way, by key: who fetches and who joins.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use outrigger_coherence::Seq;

use crate::coalesce::flight::{Flight, Producer, Reader};
use crate::sync::{Arc, Mutex, MutexGuard, lock};

const SHARDS: usize = 16;

/// What is fetched: the digest of the cache key, and a hash that tells variants apart once it is known
/// that the response varies.
pub(crate) type FlightKey = (u128, u64);

type Shard = HashMap<FlightKey, Arc<Flight>>;

/// All fetches under way that requests can join.
#[derive(Debug, Default)]
pub(crate) struct FlightTable {
    shards: [Mutex<Shard>; SHARDS],
}

/// The part of a request in a fetch.
#[derive(Debug)]
pub(crate) enum Role {
    /// It has begun the fetch, and reads like the others.
    Leader(RegisteredFlight, Reader),
    /// It has joined the fetch of another request.
    Waiter(Reader),
    /// It fetches for itself: there are too many readers, or the fetch can no longer be joined.
    Alone,
}

/// A producer whose flight is in the table, where requests find it. Its drop removes it.
#[derive(Debug)]
pub(crate) struct RegisteredFlight {
    producer: Producer,
    place: Option<Place>,
}

/// Where a flight is found.
#[derive(Debug)]
struct Place {
    table: Arc<FlightTable>,
    key: FlightKey,
    /// The key under which it is found too, since it is known how the response varies.
    varied: Option<FlightKey>,
}

impl std::ops::Deref for RegisteredFlight {
    type Target = Producer;
    fn deref(&self) -> &Producer {
        &self.producer
    }
}

impl RegisteredFlight {
    /// A producer that is not in the table, with its only reader.
    pub(crate) fn private(born_seq: Seq, began: Instant) -> (Self, Option<Reader>) {
        let producer = Producer::new(false, born_seq, began);
        let reader = producer.flight().join(1);
        (RegisteredFlight { producer, place: None }, reader)
    }

    fn listed(producer: Producer, table: &Arc<FlightTable>, key: FlightKey) -> Self {
        let place = Some(Place { table: Arc::clone(table), key, varied: None });
        RegisteredFlight { producer, place }
    }

    /// Whether other requests can find the fetch.
    pub(crate) fn is_listed(&self) -> bool {
        self.place.is_some()
    }

    /// Lets requests that know how the response varies find it, unless they have another fetch.
    pub(crate) fn list_as(&mut self, hint: u64) {
        let Some(place) = self.place.as_mut().filter(|place| place.varied.is_none()) else {
            return;
        };
        let key = (place.key.0, hint);
        if key == place.key {
            return;
        }
        let mut shard = place.table.shard(key);
        if let Entry::Vacant(free) = shard.entry(key) {
            free.insert(Arc::clone(self.producer.flight()));
            drop(shard);
            place.varied = Some(key);
        }
    }

    /// Removes the fetch from the table, so that no request joins it any more.
    pub(crate) fn unlist(&mut self) {
        let Some(Place { table, key, varied }) = self.place.take() else { return };
        for key in [Some(key), varied].into_iter().flatten() {
            let mut shard = table.shard(key);
            if shard.get(&key).is_some_and(|have| Arc::ptr_eq(have, self.producer.flight())) {
                shard.remove(&key);
            }
        }
    }
}

impl Drop for RegisteredFlight {
    fn drop(&mut self) {
        self.unlist();
    }
}

impl FlightTable {
    fn shard(&self, key: FlightKey) -> MutexGuard<'_, Shard> {
        let at = (key.0 as usize ^ key.1 as usize) % SHARDS;
        lock(&self.shards[at])
    }

    /// Joins the fetch for a key, or begins one at the position `applied` of the purge log. One that
    /// is `closed` to the request, such as one that a purge has overtaken, is not joined: the new one
    /// takes its place.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: FlightKey,
        readers_max: usize,
        applied: Seq,
        now: Instant,
        closed: impl Fn(&Flight) -> bool,
    ) -> Role {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(&key).filter(|flight| !closed(flight)) {
            return flight.join(readers_max).map_or(Role::Alone, Role::Waiter);
        }
        let producer = Producer::new(false, applied, now);
        let Some(reader) = producer.flight().join(usize::MAX) else { return Role::Alone };
        shard.insert(key, Arc::clone(producer.flight()));
        drop(shard);
        Role::Leader(RegisteredFlight::listed(producer, self, key), reader)
    }

    /// Begins a refresh in the background, which goes on without readers; `None` if the key is being
    /// fetched already.
    pub(crate) fn begin_refresh(
        self: &Arc<Self>,
        key: FlightKey,
        applied: Seq,
        now: Instant,
    ) -> Option<RegisteredFlight> {
        let mut shard = self.shard(key);
        if shard.contains_key(&key) {
            return None;
        }
        let producer = Producer::new(true, applied, now);
        shard.insert(key, Arc::clone(producer.flight()));
        drop(shard);
        Some(RegisteredFlight::listed(producer, self, key))
    }

    /// Number of fetches under way, each counted once. For operators, not for requests.
    pub(crate) fn len(&self) -> usize {
        let mut all = HashSet::new();
        for shard in &self.shards {
            all.extend(lock(shard).values().map(Arc::as_ptr));
        }
        all.len()
    }
}
