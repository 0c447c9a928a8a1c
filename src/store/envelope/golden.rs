//! Values written by earlier versions, kept as files: each reader must go on reading them. A change
//! of the form adds files, and never changes one.
//!
//! `OUTRIGGER_WRITE_GOLDEN=1 cargo test -p outrigger-store golden` writes those that are missing.

use std::path::{Path, PathBuf};

use outrigger_semantics::{Recency, UnixMillis};

use super::tests::{ALL, assert_same, codec, full_entry, keyring};
use super::*;

const NAME: &[u8] = b"or:shop:cart:e:0123456789abcdef0123456789abcdef";
const BODY: &[u8] = b"golden golden golden golden golden golden golden golden golden golden golden";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("envelope/golden")
}

fn golden(file: &str, write: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = folder().join(file);
    if !path.exists() && std::env::var_os("OUTRIGGER_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, write()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn values_of_version_1_are_read_by_every_configuration() {
    every_configuration_reads("v1", &entry_of_version_1());
}

#[test]
fn values_of_version_2_are_read_by_every_configuration() {
    every_configuration_reads("v2", &full_entry(BODY));
}

fn every_configuration_reads(version: &str, entry: &Entry) {
    let keys = tempfile::tempdir().unwrap();
    let keys = keyring(keys.path(), &[(1, 1), (2, 2)]);
    for writer in ALL {
        for (sealed, ring) in [("plain", None), ("sealed", Some(&keys))] {
            let file = format!("{version}-{}-{sealed}.bin", format!("{writer:?}").to_lowercase());
            let value = golden(&file, || codec(writer).entry(entry, NAME, ring).unwrap());
            for reader in ALL {
                assert_same(codec(reader).read(value.clone(), NAME, ring).unwrap(), entry);
            }
        }
    }
}

#[test]
fn what_is_written_without_compression_and_seal_is_the_same_to_the_byte() {
    let value = codec(Compression::None).entry(&full_entry(BODY), NAME, None).unwrap();
    assert_eq!(value, golden("v2-none-plain.bin", || value.clone()));
}

#[test]
fn a_descriptor_of_version_1_is_read() {
    let names = [http::header::ACCEPT_LANGUAGE];
    let codec = codec(Compression::Lz4);
    let write = || codec.descriptor(b"http://a/", names.iter(), NAME, None).unwrap();
    let value = golden("v1-descriptor.bin", write);
    assert!(matches!(codec.read(value, NAME, None), Ok(Value::Descriptor { .. })));
}

/// A later writer of the same version may add fields; this reader skips them.
#[test]
fn fields_of_later_writers_are_skipped() {
    let codec = codec(Compression::None);
    for (file, entry) in [
        ("v1-with-a-later-field.bin", entry_of_version_1()),
        ("v2-with-a-later-field.bin", full_entry(BODY)),
    ] {
        let value = golden(file, || {
            let mut payload = fields::write_entry(&entry);
            payload.splice(0..0, [200, 3, 0, 0, 0, b'n', b'e', b'w']);
            codec.wrap((Kind::Entry, &stamp(entry.recency)), payload, false, NAME, None).unwrap()
        });
        assert_same(codec.read(value, NAME, None).unwrap(), &entry);
    }
}

/// Version 1 had no recency: it is taken from the fields and from when the entry was stored.
fn entry_of_version_1() -> Entry {
    let mut entry = full_entry(BODY);
    entry.recency = Recency { date: UnixMillis(2_000), requested_at: UnixMillis(1_987) };
    entry
}

#[test]
fn values_of_a_later_version_are_foreign() {
    let codec = codec(Compression::None);
    let value = golden("v3.bin", || {
        let mut value = codec.entry(&full_entry(BODY), NAME, None).unwrap();
        value[2] = 3;
        let crc = checksum(NAME, &value[..CRC_AT], &[], &value[HEAD_BYTES..]);
        value[CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        value
    });
    assert_eq!(codec.read(value, NAME, None).unwrap_err(), Refused::Foreign);
}
