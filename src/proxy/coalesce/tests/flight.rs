//! What readers see of a fetch.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::coalesce::flight::*;
use crate::coalesce::readers::{Room, WINDOW_BYTES_MAX};

fn producer() -> Producer {
    Producer::new(false, 0, Instant::now())
}

async fn unread(producer: &Producer) {
    let unread = |cx: &mut std::task::Context<'_>| match producer.flight().poll_unread(cx) {
        Some(_) => Poll::Ready(()),
        None => Poll::Pending,
    };
    poll_fn(unread).await;
}

async fn next(reader: &mut Reader) -> Option<Result<Bytes, Broken>> {
    poll_fn(|cx| reader.poll_chunk(cx)).await
}

#[tokio::test]
async fn late_readers_get_every_byte() {
    let producer = producer();
    let mut early = producer.flight().join(9).unwrap();
    producer.push(Bytes::from_static(b"a"));
    assert_eq!(next(&mut early).await, Some(Ok(Bytes::from_static(b"a"))));
    let mut late = producer.flight().join(9).unwrap();
    producer.push(Bytes::from_static(b"b"));
    producer.finish(true);
    for want in [&b"a"[..], b"b"] {
        assert_eq!(next(&mut late).await, Some(Ok(Bytes::from_static(want))));
    }
    assert_eq!(next(&mut late).await, None);
}

#[tokio::test]
async fn a_dropped_producer_fails_its_readers() {
    let producer = producer();
    let mut reader = producer.flight().join(9).unwrap();
    drop(producer);
    assert!(matches!(reader.resolution().await, Resolution::Failed(_)));
    assert_eq!(next(&mut reader).await, Some(Err(Broken)));
}

#[tokio::test]
async fn the_producer_learns_that_the_last_reader_has_left() {
    let producer = producer();
    let (one, two) = (producer.flight().join(9).unwrap(), producer.flight().join(9).unwrap());
    drop(one);
    assert!(tokio::time::timeout(Duration::ZERO, unread(&producer)).await.is_err());
    drop(two);
    unread(&producer).await;
    let _three = producer.flight().join(9).unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, unread(&producer)).await.is_err());
}

#[tokio::test]
async fn the_number_of_readers_is_bounded() {
    let producer = producer();
    let _one = producer.flight().join(1).unwrap();
    assert!(producer.flight().join(1).is_none());
}

#[tokio::test]
async fn a_slow_reader_holds_back_a_response_too_large_to_store() {
    let producer = producer();
    let mut reader = producer.flight().join(9).unwrap();
    producer.stop_keeping();
    assert!(producer.flight().join(9).is_none());
    producer.push(Bytes::from(vec![0; WINDOW_BYTES_MAX]));
    let full = tokio::time::timeout(Duration::ZERO, producer.room());
    assert!(full.await.is_err());
    next(&mut reader).await;
    assert_eq!(producer.room().await, Room::Free);
}

#[tokio::test]
async fn only_a_refresh_in_the_background_is_overdue_and_only_without_a_head() {
    let (began, patience) = (Instant::now(), Duration::from_secs(1));
    let refresh = Producer::new(true, 0, began);
    let flight = refresh.flight();
    assert!(!flight.is_overdue(patience, began + patience / 2));
    assert!(flight.is_overdue(patience, began + patience));
    refresh.resolve(Resolution::Released);
    assert!(!flight.is_overdue(patience, began + patience));
    let fetch = Producer::new(false, 0, began);
    assert!(!fetch.flight().is_overdue(patience, began + patience));
}
