//! The table of fetches, as the pipeline uses it.

use std::future::poll_fn;
use std::time::Instant;

use bytes::Bytes;
use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use crate::checks::flight::{head, until_unread};
use crate::coalesce::flight::{Broken, Flight, Reader, Resolution};
use crate::coalesce::table::{FlightKey, FlightTable, RegisteredFlight, Role};
use crate::coalesce::unread::UnreadFetches;
use crate::explore::{Ghost, choose, explore, together};
use crate::sync::Arc;

const KEY: FlightKey = (1, 0);
/// The key of the same fetch, once it is known how its response varies.
const VARIED: FlightKey = (1, 7);
const CHUNKS: usize = 2;

#[derive(Debug, Default)]
struct Seen {
    /// Producers in the table, by the position of the purge log that they began at.
    listed: [Ghost; 2],
    fetches: Ghost,
}

/// How readers behave in a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    Stay,
    /// Some leave, and a fetch without readers ends.
    Leave,
    /// Some leave, and a fetch without readers goes on.
    LeaveRunning,
}

/// Fetches until done, or until nobody reads any more where it ends then.
async fn fetch(mut listed: RegisteredFlight, seen: &Seen, at: usize, goes_on: bool) {
    seen.fetches.add(1);
    let flight = Arc::clone(listed.flight());
    let done = tokio::select! {
        biased;
        () = until_unread(&flight, true), if !goes_on => false,
        () = yield_now() => true,
    };
    if done {
        if choose(2) == 0 {
            listed.list_as(VARIED.1);
        }
        listed.resolve(head(at as u64));
        for _ in 0..CHUNKS {
            listed.push(Bytes::from_static(b"x"));
        }
        listed.finish(true);
    }
    // Counted down here before it leaves the table, and so never more than are in it.
    seen.listed[at].take(1);
    if choose(2) == 0 {
        listed.unlist();
    }
}

fn lead(listed: RegisteredFlight, seen: &Arc<Seen>, at: usize, overtaken: bool, readers: Readers) {
    assert!(seen.listed[at].add(1) == 1 || overtaken, "two fetches for one key");
    let seen = Arc::clone(seen);
    let goes_on = readers == Readers::LeaveRunning;
    thread::spawn(move || block_on(fetch(listed, &seen, at, goes_on)));
}

fn follow(mut reader: Reader, readers: Readers, at: usize) {
    match readers {
        Readers::Leave | Readers::LeaveRunning if choose(2) == 0 => return,
        _ => {}
    }
    let resolution = block_on(reader.resolution());
    match resolution {
        Resolution::Streaming(head) => assert!(head.seen_seq >= at as u64, "that was purged"),
        _ => assert_eq!(readers, Readers::Leave, "only a fetch that was abandoned fails"),
    }
    let mut got = 0;
    loop {
        match block_on(poll_fn(|cx| reader.poll_chunk(cx))) {
            Some(Ok(_)) => got += 1,
            None => return assert_eq!(got, CHUNKS, "cut off without a word"),
            Some(Err(Broken)) => return assert_eq!(readers, Readers::Leave),
        }
    }
}

/// Requests and a refresh for one key; some come after a purge and may not join a fetch from
/// before it.
fn story(readers: Readers, purge: bool) {
    let table = Arc::new(FlightTable::default());
    let seen = Arc::new(Seen::default());
    let (of, known) = (Arc::clone(&table), Arc::clone(&seen));
    together(4, move |nth| {
        if nth == 3 {
            if let Some(listed) = of.begin_refresh(KEY, 0, Instant::now()) {
                lead(listed, &known, 0, purge, readers);
            }
            return;
        }
        let at = if purge { choose(2) } else { 0 };
        let overtaken = |flight: &Flight| flight.born_seq() < at as u64;
        match of.join(KEY, 2, at as u64, Instant::now(), overtaken) {
            Role::Leader(listed, reader) => {
                lead(listed, &known, at, purge && at == 0, readers);
                follow(reader, readers, at);
            }
            Role::Waiter(reader) => {
                follow(reader, readers, at);
            }
            Role::Alone => {}
        }
    });
    // Producers end by themselves; a refresh as well, for it goes on without readers.
    while seen.listed.iter().any(|listed| listed.get() > 0) || table.len() > 0 {
        thread::yield_now();
    }
    assert!(seen.fetches.get() > 0);
    for key in [KEY, VARIED] {
        let fresh = table.join(key, 2, 0, Instant::now(), |_| false);
        assert!(matches!(fresh, Role::Leader(..)), "the place is free again");
    }
}

#[test]
fn one_fetch_serves_all_who_stay() {
    explore(2000, || story(Readers::Stay, false));
}

#[test]
fn readers_that_leave_strand_nobody() {
    explore(2000, || story(Readers::Leave, false));
}

#[test]
fn a_fetch_left_running_serves_who_comes_later() {
    explore(2000, || story(Readers::LeaveRunning, false));
}

#[test]
fn what_was_purged_is_not_joined() {
    explore(2000, || story(Readers::Stay, true));
}

/// Who finds a fetch by its variant, while it is listed so and while it ends, reads all of it.
#[test]
fn a_fetch_is_joined_by_either_key_until_it_leaves_both() {
    explore(2000, || {
        let table = Arc::new(FlightTable::default());
        let join = |key| table.join(key, 9, 0, Instant::now(), |_| false);
        let Role::Leader(mut listed, first) = join(KEY) else { panic!("it leads") };
        let producing = thread::spawn(move || {
            listed.list_as(VARIED.1);
            listed.resolve(head(0));
            (0..CHUNKS).for_each(|_| listed.push(Bytes::from_static(b"x")));
            listed.finish(true);
        });
        let of = Arc::clone(&table);
        together(2, move |nth| {
            match of.join([KEY, VARIED][nth], 9, 0, Instant::now(), |_| false) {
                Role::Waiter(reader) => follow(reader, Readers::Stay, 0),
                Role::Leader(..) | Role::Alone => {}
            }
        });
        follow(first, Readers::Stay, 0);
        producing.join().expect("it ends well");
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn fetches_that_nobody_reads_stay_within_their_bounds() {
    const FETCHES: usize = 2;
    const BYTES: usize = 5;
    explore(2000, || {
        let fetches = UnreadFetches::new(FETCHES, BYTES as u64);
        let (taken, held) = (Arc::new(Ghost::default()), Arc::new(Ghost::default()));
        let of = Arc::clone(&fetches);
        together(4, move |nth| {
            let Some(mut place) = of.place((nth > 1).then_some(1)) else { return };
            assert!(taken.add(1) <= FETCHES, "too many");
            let bytes = choose(4);
            if place.hold(bytes as u64) {
                assert!(held.add(bytes) <= BYTES, "too large");
                thread::yield_now();
                held.take(bytes);
            }
            taken.take(1);
        });
        assert_eq!(fetches.len(), 0);
        assert!(fetches.place(Some(1)).is_some_and(|mut all| all.hold(BYTES as u64)));
    });
}
