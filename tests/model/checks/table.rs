//! The table of fetches, as the pipeline uses it.

use std::future::poll_fn;

use bytes::Bytes;
use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use crate::checks::flight::head;
use crate::coalesce::flight::{Broken, Flight, Reader, Resolution};
use crate::coalesce::table::{FlightKey, FlightTable, RegisteredFlight, Role};
use crate::explore::{Ghost, choose, explore, together};
use crate::sync::Arc;

const KEY: FlightKey = (1, 0);
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
    Leave,
    LeaveRunning,
}

/// Fetches until done, or until nobody reads any more.
async fn fetch(mut listed: RegisteredFlight, seen: &Seen, at: usize) {
    seen.fetches.add(1);
    let flight = Arc::clone(listed.flight());
    let done = tokio::select! {
        biased;
        () = flight.abandoned() => false,
        () = yield_now() => true,
    };
    if done {
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

fn lead(listed: RegisteredFlight, seen: &Arc<Seen>, at: usize, overtaken: bool) {
    assert!(seen.listed[at].add(1) == 1 || overtaken, "two fetches for one key");
    let seen = Arc::clone(seen);
    thread::spawn(move || block_on(fetch(listed, &seen, at)));
}

fn follow(mut reader: Reader, readers: Readers, at: usize) {
    match readers {
        Readers::Leave if choose(2) == 0 => return,
        Readers::LeaveRunning if choose(2) == 0 => return reader.leave_running(),
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
            if let Some(listed) = of.begin_refresh(KEY, 0) {
                lead(listed, &known, 0, purge);
            }
            return;
        }
        let at = if purge { choose(2) } else { 0 };
        let overtaken = |flight: &Flight| flight.born_seq() < at as u64;
        match of.join(KEY, 2, at as u64, overtaken) {
            Role::Leader(listed, reader) => {
                lead(listed, &known, at, purge && at == 0);
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
    let fresh = table.join(KEY, 2, 0, |_| false);
    assert!(matches!(fresh, Role::Leader(..)), "the place is free again");
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
