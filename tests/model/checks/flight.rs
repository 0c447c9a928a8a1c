//! One fetch between its producer and readers that come and go.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use outrigger_semantics::{FreshnessSource, Lifetimes, UnixMillis, Variant};
use shuttle::future::block_on;
use shuttle::thread;

use crate::coalesce::flight::{Broken, Flight, FlightHead, Producer, Reader, Resolution};
use crate::coalesce::readers::{HOLD_MAX, Progress, Room, SHARED_WINDOW_BYTES_MAX as WINDOW};
use crate::explore::{choose, explore};
use crate::sync::Arc;

const CHUNKS: usize = 3;
static BODY: [u8; CHUNKS * WINDOW] = [0; CHUNKS * WINDOW];

/// A chunk that fills the window of a response too large to store; told by where it lies.
fn chunk(nth: usize) -> Bytes {
    Bytes::from_static(&BODY[nth * WINDOW..(nth + 1) * WINDOW])
}

/// A fetch that is no refresh in the background.
fn producer() -> Producer {
    Producer::new(false, 0, Instant::now())
}

/// Waits until nobody reads a fetch, or until somebody does.
pub(super) async fn until_unread(flight: &Flight, unread: bool) {
    poll_fn(|cx| match flight.poll_unread(cx).is_some() == unread {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// A head that was seen at this position of the purge log.
pub(super) fn head(seen_seq: u64) -> Resolution {
    let at = UnixMillis(0);
    let lifetimes = Lifetimes {
        born: at,
        fresh_until: at,
        stale_while_revalidate_until: at,
        stale_if_error_until: at,
        no_cache: false,
        invalid: false,
        forbids_stale: false,
        immutable: false,
        policy_alone: false,
        source: FreshnessSource::None,
    };
    Resolution::Streaming(Arc::new(FlightHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        lifetimes,
        variant: Variant::default(),
        omit: Vec::new(),
        seen_seq,
    }))
}

/// Reads up to `patience` chunks, which have to come in order; how it ended, if it did.
fn read(reader: &mut Reader, patience: usize) -> Option<Result<(), Broken>> {
    for nth in 0..patience {
        match block_on(poll_fn(|cx| reader.poll_chunk(cx))) {
            Some(Ok(got)) => assert_eq!(got.as_ptr(), chunk(nth).as_ptr(), "chunk {nth}"),
            Some(Err(Broken)) => return Some(Err(Broken)),
            None => {
                assert_eq!(nth, CHUNKS, "cut off without a word");
                return Some(Ok(()));
            }
        }
    }
    None
}

/// The body, complete, broken off, or cut short by the producer's end.
fn produce(producer: Producer, whole: bool, large: bool) {
    producer.resolve(head(0));
    let until = if whole { CHUNKS } else { choose(CHUNKS) };
    for nth in 0..until {
        if large && nth == 1 {
            producer.stop_keeping();
        }
        block_on(producer.room());
        producer.push(chunk(nth));
    }
    if whole {
        producer.finish(true);
    } else if choose(2) == 0 {
        producer.finish(false);
    }
}

#[test]
fn readers_see_all_bytes_in_order_or_an_error() {
    explore(3000, || {
        let (whole, large) = (choose(2) == 0, choose(2) == 0);
        let producer = producer();
        let flight = Arc::clone(producer.flight());
        let first = flight.join(9).expect("the first joins");
        let mut readers = vec![thread::spawn(move || follow(first, whole))];
        for _ in 0..2 {
            let flight = Arc::clone(&flight);
            readers.push(thread::spawn(move || {
                // Too late for a window that has moved on, or for a fetch that has failed.
                if let Some(reader) = flight.join(9) {
                    follow(reader, whole);
                }
            }));
        }
        readers.push(thread::spawn(move || produce(producer, whole, large)));
        readers.into_iter().for_each(|one| one.join().expect("it ends well"));
    });
}

/// One client: it leaves before the head, in the middle, or stays to the end.
fn follow(mut reader: Reader, whole: bool) {
    if choose(6) == 0 {
        return;
    }
    let resolution = block_on(reader.resolution());
    assert!(matches!(resolution, Resolution::Streaming(_)), "{resolution:?}");
    let patience = if choose(3) == 0 { choose(CHUNKS) } else { usize::MAX };
    match read(&mut reader, patience) {
        Some(ended) => assert_eq!(ended.is_ok(), whole),
        None => assert!(patience < CHUNKS),
    }
}

#[test]
fn a_producer_that_is_dropped_fails_all_who_wait() {
    explore(2000, || {
        let producer = producer();
        let join = || producer.flight().join(9).expect("it joins");
        let readers: Vec<_> = [join(), join(), join()]
            .into_iter()
            .map(|mut reader| {
                thread::spawn(move || {
                    let resolution = block_on(reader.resolution());
                    assert!(matches!(resolution, Resolution::Failed(_)), "{resolution:?}");
                    assert_eq!(read(&mut reader, 1), Some(Err(Broken)));
                })
            })
            .collect();
        drop(producer);
        readers.into_iter().for_each(|one| one.join().expect("it ends well"));
    });
}

#[test]
fn each_step_wakes_all_who_wait_for_it() {
    fn all(readers: Vec<Reader>, step: fn(&mut Reader)) -> Vec<thread::JoinHandle<Reader>> {
        let spawn = |mut reader: Reader| {
            thread::spawn(move || {
                step(&mut reader);
                reader
            })
        };
        readers.into_iter().map(spawn).collect()
    }
    fn ended(all: Vec<thread::JoinHandle<Reader>>) -> Vec<Reader> {
        // A lost wake-up would be a deadlock.
        all.into_iter().map(|one| one.join().expect("it ends well")).collect()
    }
    explore(1000, || {
        let producer = producer();
        let readers = (0..2).map(|_| producer.flight().join(9).expect("it joins")).collect();
        let waiting = all(readers, |reader| drop(block_on(reader.resolution())));
        producer.resolve(head(0));
        let waiting = all(ended(waiting), |reader| {
            assert!(block_on(poll_fn(|cx| reader.poll_chunk(cx))).is_some());
        });
        producer.push(chunk(0));
        let waiting = all(ended(waiting), |reader| {
            assert_eq!(block_on(poll_fn(|cx| reader.poll_chunk(cx))), None);
        });
        producer.finish(true);
        ended(waiting);
    });
}

#[test]
fn the_last_reader_that_leaves_wakes_the_producer() {
    explore(3000, || {
        let producer = producer();
        let join = || producer.flight().join(9).expect("it joins");
        let readers = [join(), join(), join()];
        let leaving = readers.map(|mut reader| {
            thread::spawn(move || {
                if choose(2) == 0 {
                    // Heard once, so that its waker is there too.
                    let mut cx = Context::from_waker(Waker::noop());
                    assert!(reader.poll_chunk(&mut cx).is_pending());
                }
                drop(reader);
            })
        });
        // A lost wake-up would be a deadlock.
        block_on(until_unread(producer.flight(), true));
        assert!(producer.is_unread());
        leaving.into_iter().for_each(|one| one.join().expect("it ends well"));
    });
}

#[test]
fn a_fetch_that_nobody_reads_learns_of_the_next_reader() {
    explore(3000, || {
        let producer = producer();
        let join = || producer.flight().join(9).expect("it joins");
        let (stays, leaves) = (join(), join());
        let leaving = [thread::spawn(move || drop(stays)), thread::spawn(move || drop(leaves))];
        block_on(until_unread(producer.flight(), true));
        let flight = Arc::clone(producer.flight());
        let next = thread::spawn(move || {
            let mut reader = flight.join(9).expect("who comes later still joins");
            assert_eq!(read(&mut reader, usize::MAX), Some(Ok(())));
        });
        // A lost wake-up would be a deadlock.
        block_on(until_unread(producer.flight(), false));
        leaving.into_iter().for_each(|one| one.join().expect("it ends well"));
        produce(producer, true, false);
        next.join().expect("it ends well");
    });
}

#[test]
fn a_refresh_in_the_background_is_never_unread() {
    explore(1000, || {
        let producer = Producer::new(true, 0, Instant::now());
        let reader = producer.flight().join(9).expect("it joins");
        let leaving = thread::spawn(move || drop(reader));
        for _ in 0..4 {
            let mut cx = Context::from_waker(Waker::noop());
            assert_eq!(producer.flight().poll_unread(&mut cx), None);
            thread::yield_now();
        }
        leaving.join().expect("it ends well");
    });
}

/// The body of a response too large to store, for readers of whom one may stall. The time of a look
/// is as long as a reader may hold others back.
fn produce_and_cut(producer: Producer) -> usize {
    producer.resolve(head(0));
    producer.stop_keeping();
    let (mut now, mut cut) = (Instant::now(), 0);
    for nth in 0..CHUNKS {
        while let Room::Held { .. } = block_on(producer.room()) {
            thread::yield_now();
            let progress = Progress { began: now, since: now, now: now + HOLD_MAX };
            cut += producer.count_hold(progress);
            now += HOLD_MAX;
        }
        if producer.is_unread() {
            return cut;
        }
        producer.push(chunk(nth));
    }
    producer.finish(true);
    cut
}

#[test]
fn a_stalled_reader_is_cut_loose_and_the_others_go_on() {
    explore(3000, || {
        let producer = producer();
        let join = || producer.flight().join(9).expect("it joins");
        let (mut stalled, quick) = (join(), [join(), join()]);
        let quick = quick.map(|mut reader| {
            thread::spawn(move || match read(&mut reader, usize::MAX) {
                // Who is slow in this schedule may be cut loose too, but not without a word.
                Some(Ok(())) => true,
                Some(Err(Broken)) => false,
                None => unreachable!("it has patience"),
            })
        });
        let producing = thread::spawn(move || produce_and_cut(producer));
        let whole = quick.map(|one| one.join().expect("a stalled reader holds nobody for ever"));
        let whole = whole.into_iter().filter(|whole| *whole).count();
        // The stalled one reads on: it has what was its own, and then the end or a broken body.
        let end = read(&mut stalled, usize::MAX).expect("it has patience");
        let cut = producing.join().expect("it ends well");
        assert!(whole > 0, "all were cut loose");
        assert_eq!(cut, 2 - whole + usize::from(end.is_err()));
    });
}
