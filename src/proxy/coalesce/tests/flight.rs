//! What readers see of a fetch.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;

use crate::coalesce::flight::*;

async fn next(reader: &mut Reader) -> Option<Result<Bytes, Broken>> {
    poll_fn(|cx| reader.poll_chunk(cx)).await
}

#[tokio::test]
async fn late_readers_get_every_byte() {
    let producer = Producer::new(false, 0);
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
    let producer = Producer::new(false, 0);
    let mut reader = producer.flight().join(9).unwrap();
    drop(producer);
    assert!(matches!(reader.resolution().await, Resolution::Failed(_)));
    assert_eq!(next(&mut reader).await, Some(Err(Broken)));
}

#[tokio::test]
async fn the_last_reader_to_leave_stops_the_producer() {
    let producer = Producer::new(false, 0);
    let (one, two) = (producer.flight().join(9).unwrap(), producer.flight().join(9).unwrap());
    drop(one);
    let waiting =
        tokio::time::timeout(std::time::Duration::ZERO, Arc::clone(producer.flight()).abandoned());
    assert!(waiting.await.is_err());
    drop(two);
    Arc::clone(producer.flight()).abandoned().await;
}

#[tokio::test]
async fn the_number_of_readers_is_bounded() {
    let producer = Producer::new(false, 0);
    let _one = producer.flight().join(1).unwrap();
    assert!(producer.flight().join(1).is_none());
}

#[tokio::test]
async fn a_slow_reader_holds_back_a_response_too_large_to_store() {
    let producer = Producer::new(false, 0);
    let mut reader = producer.flight().join(9).unwrap();
    producer.stop_keeping();
    assert!(producer.flight().join(9).is_none());
    producer.push(Bytes::from(vec![0; WINDOW_BYTES_MAX]));
    let full = tokio::time::timeout(std::time::Duration::ZERO, producer.room());
    assert!(full.await.is_err());
    next(&mut reader).await;
    producer.room().await;
}
