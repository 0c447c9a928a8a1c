//! Values survive the way there and back, and nothing else is believed.

use std::path::Path;

use http::{HeaderMap, HeaderValue, StatusCode};
use outrigger_semantics::{FreshnessSource, Lifetimes, UnixMillis, Variant};
use proptest::prelude::*;

use super::seal::KeyError;
use super::*;
use crate::entry::{Draft, LogSpan};

/// An entry with something in every field.
pub(super) fn full_entry(body: &[u8]) -> Entry {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("etag", "\"a\""),
        ("vary", "accept-language, x-absent"),
        ("cache-tag", "red,blue"),
        ("x-odd", "caf\u{e9}"),
    ] {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers.append("x-twice", HeaderValue::from_static("1"));
    headers.append("x-twice", HeaderValue::from_static("2"));
    let mut request = HeaderMap::new();
    request.insert("accept-language", HeaderValue::from_static("de"));
    let key = b"http://shop.svc/a?b=1\nx-tenant\n=5";
    Entry::new(Draft {
        key,
        digest: outrigger_semantics::digest(key),
        uri_len: 21,
        uri_digest: outrigger_semantics::digest(&key[..21]),
        status: StatusCode::OK,
        variant: Variant::of(&headers, &request, &[]),
        headers: &headers,
        omit: &[],
        body: bytes::Bytes::copy_from_slice(body),
        part: None,
        lifetimes: Lifetimes {
            born: UnixMillis(1_000),
            fresh_until: UnixMillis(61_000),
            stale_while_revalidate_until: UnixMillis(91_000),
            stale_if_error_until: UnixMillis::MAX,
            no_cache: false,
            invalid: false,
            forbids_stale: true,
            immutable: true,
            policy_alone: false,
            source: FreshnessSource::SMaxage,
        },
        log: LogSpan { born: 7, seen: 9 },
        rules_fingerprint: 0xfeed,
        recency: Recency { date: UnixMillis(1_000), requested_at: UnixMillis(1_987) },
        now: UnixMillis(2_000),
        fetch_millis: 13,
    })
}

pub(super) fn codec(compression: Compression) -> Codec {
    Codec { compression, compress_bytes_min: 64, value_bytes_max: 1 << 20 }
}

pub(super) const ALL: [Compression; 4] =
    [Compression::None, Compression::Lz4, Compression::Snappy, Compression::Zstd];

pub(super) fn keyring(folder: &Path, keys: &[(u32, u8)]) -> Keyring {
    for (number, byte) in keys {
        std::fs::write(folder.join(format!("{number}.key")), [*byte; 32]).unwrap();
    }
    Keyring::load(folder).unwrap()
}

#[track_caller]
pub(super) fn assert_same(value: Value, entry: &Entry) {
    let Value::Entry(got) = value else { panic!("no entry") };
    assert_eq!(got.key, entry.key);
    assert_eq!((got.digest, got.uri_digest), (entry.digest, entry.uri_digest));
    assert_eq!((got.uri_len, got.status), (entry.uri_len, entry.status));
    assert_eq!(got.headers, entry.headers);
    assert_eq!(got.body, entry.body);
    assert_eq!((&got.part, &got.variant), (&entry.part, &entry.variant));
    assert_eq!(got.lifetimes, entry.lifetimes);
    assert_eq!(got.tags, entry.tags);
    assert_eq!((got.born_seq, got.seen_seq), (entry.born_seq, entry.seen_seq));
    assert_eq!((got.rules_fingerprint, got.stored_at), (entry.rules_fingerprint, entry.stored_at));
    assert_eq!((got.fetch_millis, got.recency), (entry.fetch_millis, entry.recency));
}

#[test]
fn every_compression_is_read_by_every_reader_sealed_and_not() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keyring(folder.path(), &[(1, 1)]);
    let body = b"a body that repeats itself ".repeat(40);
    let entry = full_entry(&body);
    for writer in ALL {
        for reader in ALL {
            for keys in [None, Some(&keys)] {
                let value = codec(writer).entry(&entry, b"or:n:w:e:1", keys).unwrap();
                if writer != Compression::None {
                    assert!(value.len() < body.len(), "{writer:?}");
                }
                let text = b"repeats itself";
                let plain = value.windows(text.len()).any(|w| w == text);
                assert!(keys.is_none() || !plain, "a sealed value shows its content");
                let read = codec(reader).read(value, b"or:n:w:e:1", keys).unwrap();
                assert_same(read, &entry);
            }
        }
    }
}

#[test]
fn a_value_under_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keyring(folder.path(), &[(1, 1)]);
    let entry = full_entry(b"x");
    for keys in [None, Some(&keys)] {
        let value = codec(Compression::None).entry(&entry, b"one", keys).unwrap();
        let refused = codec(Compression::None).read(value, b"other", keys).unwrap_err();
        assert_eq!(refused, Refused::Corrupt);
    }
    // Whoever mends the checksum is stopped by the seal.
    let mut value = codec(Compression::None).entry(&entry, b"one", Some(&keys)).unwrap();
    let crc = checksum(b"other", &value[..CRC_AT], &[], &value[HEAD_BYTES..]);
    value[CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    let refused = codec(Compression::None).read(value, b"other", Some(&keys)).unwrap_err();
    assert_eq!(refused, Refused::Seal);
}

#[test]
fn keys_change_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let first = keyring(folder.path(), &[(1, 1)]);
    let both = keyring(folder.path(), &[(2, 2)]);
    assert_eq!((first.active(), both.active()), (1, 2));
    let entry = full_entry(b"x");
    let codec = codec(Compression::Lz4);
    let old = codec.entry(&entry, b"n", Some(&first)).unwrap();
    let new = codec.entry(&entry, b"n", Some(&both)).unwrap();
    assert_same(codec.read(old.clone(), b"n", Some(&both)).unwrap(), &entry);
    assert_same(codec.read(new.clone(), b"n", Some(&both)).unwrap(), &entry);
    assert_eq!(codec.read(new, b"n", Some(&first)).unwrap_err(), Refused::Seal);
    assert_eq!(codec.read(old, b"n", None).unwrap_err(), Refused::Seal);
    let plain = codec.entry(&entry, b"n", None).unwrap();
    assert_eq!(codec.read(plain, b"n", Some(&both)).unwrap_err(), Refused::Unsealed);
    std::fs::write(folder.path().join("active"), "1\n").unwrap();
    assert_eq!(Keyring::load(folder.path()).unwrap().active(), 1);
}

#[test]
fn keys_are_read_in_all_spellings_and_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(matches!(Keyring::load(path), Err(KeyError::Empty(_))));
    std::fs::write(path.join("1.key"), "ab".repeat(32) + "\n").unwrap();
    let base64 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    std::fs::write(path.join("2.key"), base64).unwrap();
    assert_eq!(Keyring::load(path).unwrap().numbers(), [1, 2]);
    std::fs::write(path.join("active"), "3").unwrap();
    assert!(Keyring::load(path).unwrap_err().to_string().contains("\"3\""));
    std::fs::remove_file(path.join("active")).unwrap();
    std::fs::write(path.join("3.key"), "too short").unwrap();
    assert!(Keyring::load(path).unwrap_err().to_string().contains("3.key"));
}

#[test]
fn descriptors_come_back() {
    let names = [http::header::ACCEPT_LANGUAGE, http::header::ACCEPT];
    let codec = codec(Compression::Lz4);
    let value = codec.descriptor(b"http://a/", names.iter(), b"n", None).unwrap();
    let Ok(Value::Descriptor { key, names: got }) = codec.read(value, b"n", None) else {
        panic!("no descriptor")
    };
    assert_eq!((&key[..], &got[..]), (&b"http://a/"[..], &names[..]));
}

#[test]
fn a_claim_about_size_is_checked_before_it_is_believed() {
    let mut value = codec(Compression::Zstd).entry(&full_entry(&[0; 500]), b"n", None).unwrap();
    value[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = checksum(b"n", &value[..CRC_AT], &[], &value[HEAD_BYTES..]);
    value[CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    let refused = codec(Compression::Zstd).read(value, b"n", None).unwrap_err();
    assert_eq!(refused, Refused::Foreign);
}

#[test]
fn a_length_that_is_not_the_bodys_is_refused() {
    let mut entry = full_entry(b"four");
    entry.headers.insert("content-length", HeaderValue::from_static("5"));
    let codec = codec(Compression::None);
    let value = codec.entry(&entry, b"n", None).unwrap();
    assert_eq!(codec.read(value, b"n", None).unwrap_err(), Refused::Corrupt);
}

proptest! {
    #[test]
    fn no_value_makes_the_reader_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec(Compression::Lz4).read(value, b"n", None);
    }

    /// Behind a right head with a right checksum, as one who can write to Redis would make it.
    #[test]
    fn no_forged_payload_makes_the_reader_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..120),
        compression in 0u8..5,
        kind in 1u8..3,
        version in 1u8..3,
        raw in 0u32..400,
    ) {
        let mut value = vec![b'O', b'R', version, kind, compression, 0, 0, 0];
        value.extend_from_slice(&raw.to_le_bytes());
        let crc = checksum(b"n", &value, &[], &payload);
        value.extend_from_slice(&crc.to_le_bytes());
        value.extend_from_slice(&payload);
        let _ = codec(Compression::Lz4).read(value, b"n", None);
    }

    #[test]
    fn a_damaged_value_is_refused(at in 0usize..600, bit in 0u8..8, cut in 0usize..600) {
        let codec = codec(Compression::None);
        let value = codec.entry(&full_entry(&[b'x'; 200]), b"n", None).unwrap();
        let mut flipped = value.clone();
        let at = at % flipped.len();
        flipped[at] ^= 1 << bit;
        prop_assert!(codec.read(flipped, b"n", None).is_err());
        let cut = cut % value.len();
        prop_assert!(codec.read(value[..cut].to_vec(), b"n", None).is_err());
    }
}
