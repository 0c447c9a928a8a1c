//! The format of stored responses outside of this process.
//!
//! A value is a fixed head, then the fields of the entry, optionally compressed and sealed. The head
//! names the version; a reader that does not know the version refuses the value as foreign. Within a
//! version fields have numbers, and unknown ones are skipped, so that a later writer can add fields
//! that an earlier reader ignores. Every length that a value states is checked before it is used: a
//! hostile value costs a miss and a count.
//!
//! ```text
//! "OR" | version | kind | compression | sealing | 2 bytes zero | length before compression (u32)
//!      | CRC-32 of name, head and rest (u32) | version 2 only: date (14), time of the request (14)
//!      | sealed only: key number (u32), nonce (12) | rest
//! ```
//! Integers are little-endian. The two times of version 2 are decimal milliseconds since the Unix
//! epoch: they are the recency of a stored response, in a form that a script of Redis can compare.
//! Descriptors have none, and are written in version 1. The checksum covers the name under which the value is stored, and so
//! does the seal (as associated data): a value copied to another name is refused.

mod compress;
mod fields;
mod rest;
pub mod seal;

use http::HeaderName;
use outrigger_semantics::Recency;

use crate::entry::Entry;
pub use compress::Compression;
pub use rest::Refused;
use rest::Rest;
use seal::Keyring;

/// The version without recency.
const PLAIN: u8 = 1;
/// The version with recency.
const STAMPED: u8 = 2;
const MAGIC: [u8; 2] = *b"OR";
const HEAD_BYTES: usize = 16;
const CRC_AT: usize = 12;
/// Digits of each time of the recency.
const DIGITS: usize = 14;
const STAMP_BYTES: usize = 2 * DIGITS;

/// The content of a value.
#[derive(Debug)]
pub enum Value {
    /// A stored response with all its fields.
    Entry(Box<Entry>),
    /// The response under this key varies by these fields; each variant has a name of its own.
    Descriptor {
        /// The canonical key that varies.
        key: Vec<u8>,
        /// Names of the selecting fields.
        names: Vec<HeaderName>,
    },
}

/// Writes and reads values. It does no input or output.
#[derive(Clone, Debug)]
pub struct Codec {
    /// How values are compressed.
    pub compression: Compression,
    /// Smaller values are not compressed, bytes.
    pub compress_bytes_min: usize,
    /// Larger values are refused, bytes before compression.
    pub value_bytes_max: usize,
}

impl Codec {
    /// Bytes of the largest value that can be ours.
    pub fn bytes_max(&self) -> usize {
        self.value_bytes_max + HEAD_BYTES + STAMP_BYTES + seal::EXTRA_BYTES + seal::TAG_BYTES
    }

    /// A stored response as a value for `name`. `None` if it is larger than a value may be.
    pub fn entry(&self, entry: &Entry, name: &[u8], keys: Option<&Keyring>) -> Option<Vec<u8>> {
        let compressible = fields::is_compressible(entry);
        let stamp = stamp(entry.recency);
        let payload = fields::write_entry(entry);
        self.wrap((Kind::Entry, &stamp), payload, compressible, name, keys)
    }

    /// A descriptor as a value for `name`.
    pub fn descriptor<'a>(
        &self,
        key: &[u8],
        names: impl Iterator<Item = &'a HeaderName>,
        name: &[u8],
        keys: Option<&Keyring>,
    ) -> Option<Vec<u8>> {
        let payload = fields::write_descriptor(key, names);
        self.wrap((Kind::Descriptor, ""), payload, false, name, keys)
    }

    fn wrap(
        &self,
        (kind, stamp): (Kind, &str),
        payload: Vec<u8>,
        compressible: bool,
        name: &[u8],
        keys: Option<&Keyring>,
    ) -> Option<Vec<u8>> {
        let raw_length = u32::try_from(payload.len()).ok()?;
        if payload.len() > self.value_bytes_max {
            return None;
        }
        let wanted = compressible && payload.len() >= self.compress_bytes_min;
        let (compression, mut rest) = match self.compression {
            wish if wanted => wish.shrink(payload),
            _ => (Compression::None, payload),
        };
        let mut head = Vec::with_capacity(HEAD_BYTES + STAMP_BYTES + seal::EXTRA_BYTES);
        head.extend_from_slice(&MAGIC);
        let sealing = u8::from(keys.is_some());
        let version = if stamp.is_empty() { PLAIN } else { STAMPED };
        head.extend_from_slice(&[version, kind as u8, compression.code(), sealing, 0, 0]);
        head.extend_from_slice(&raw_length.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(stamp.as_bytes());
        if let Some(keys) = keys {
            let extra = keys.seal(&head[..CRC_AT], name, &mut rest)?;
            head.extend_from_slice(&extra);
        }
        let crc = checksum(name, &head[..CRC_AT], &head[HEAD_BYTES..], &rest);
        head[CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        head.extend_from_slice(&rest);
        Some(head)
    }

    /// Reads the value that is stored under `name`.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(
        &self,
        value: Vec<u8>,
        name: &[u8],
        keys: Option<&Keyring>,
    ) -> Result<Value, Refused> {
        let Some((head, after)) = value.split_first_chunk::<HEAD_BYTES>() else {
            return Err(Refused::Foreign);
        };
        let from = match head[2] {
            PLAIN => HEAD_BYTES,
            STAMPED => HEAD_BYTES + STAMP_BYTES,
            _ => return Err(Refused::Foreign),
        };
        if head[..2] != MAGIC {
            return Err(Refused::Foreign);
        }
        if value.len() < from {
            return Err(Refused::Corrupt);
        }
        let kind = Kind::of(head[3]).ok_or(Refused::Foreign)?;
        let compression = Compression::of(head[4]).ok_or(Refused::Foreign)?;
        let raw_length = u32_at(head, 8) as usize;
        if raw_length > self.value_bytes_max {
            return Err(Refused::Foreign);
        }
        if checksum(name, &head[..CRC_AT], &[], after) != u32_at(head, CRC_AT) {
            return Err(Refused::Corrupt);
        }
        let head = *head;
        let payload = match (head[5], keys) {
            (0, None) => compression.expand(Rest::whole(value, from), raw_length),
            (0, Some(_)) => return Err(Refused::Unsealed),
            (1, Some(keys)) => {
                let opened = keys.open(&head[..CRC_AT], name, value, from)?;
                compression.expand(opened, raw_length)
            }
            (1, None) => return Err(Refused::Seal),
            _ => return Err(Refused::Foreign),
        };
        let payload = payload.ok_or(Refused::Corrupt)?;
        match kind {
            Kind::Entry => fields::read_entry(payload)
                .map(|e| Value::Entry(Box::new(e)))
                .ok_or(Refused::Corrupt),
            Kind::Descriptor => fields::read_descriptor(&payload)
                .map(|(key, names)| Value::Descriptor { key, names })
                .ok_or(Refused::Corrupt),
        }
    }
}

/// The recency as it stands in a value.
fn stamp(recency: Recency) -> String {
    let [date, requested_at] = digits(recency);
    date + &requested_at
}

/// The two times of a recency, in digits of one length.
pub fn digits(recency: Recency) -> [String; 2] {
    let max = 10_i64.pow(DIGITS as u32) - 1;
    [recency.date, recency.requested_at].map(|at| format!("{:0DIGITS$}", at.0.clamp(0, max)))
}

#[derive(Clone, Copy)]
enum Kind {
    Entry = 1,
    Descriptor = 2,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Entry),
            2 => Some(Self::Descriptor),
            _ => None,
        }
    }
}

fn u32_at(head: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn checksum(name: &[u8], head: &[u8], extra: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [name, head, extra, rest] {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
