//! Compression of values. Every kind is read, whichever one is written.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rest::Rest;

/// Kinds of compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "AlgorithmConfig")]
#[serde(rename_all = "camelCase")]
pub enum Compression {
    /// LZ4 block format: fast.
    #[default]
    Lz4,
    /// Snappy raw format: fast, and known to other systems.
    Snappy,
    /// Zstandard, level 3: smaller and slower.
    Zstd,
    /// Values are not compressed.
    None,
}

/// A value must shrink by at least an eighth to be worth expanding on every read.
const WORTH_DIVISOR: usize = 8;
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The number in the head of a value.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Snappy => 2,
            Self::Zstd => 3,
        }
    }

    /// The kind with a number.
    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::None, Self::Lz4, Self::Snappy, Self::Zstd].into_iter().find(|c| c.code() == code)
    }

    /// Compresses the payload, or leaves it as it is where compression does not pay. Returns what was
    /// done.
    pub(super) fn shrink(self, payload: Vec<u8>) -> (Self, Vec<u8>) {
        let shrunk = match self {
            Self::None => None,
            Self::Lz4 => Some(lz4_flex::block::compress(&payload)),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(&payload).ok(),
            Self::Zstd => zstd::bulk::compress(&payload, ZSTD_LEVEL).ok(),
        };
        match shrunk {
            Some(shrunk) if shrunk.len() + payload.len() / WORTH_DIVISOR < payload.len() => {
                (self, shrunk)
            }
            _ => (Self::None, payload),
        }
    }

    /// Expands to exactly `raw_length` bytes; `None` if that is not what comes of it.
    pub(super) fn expand(self, rest: Rest, raw_length: usize) -> Option<Bytes> {
        if self == Self::None {
            return (rest.bytes().len() == raw_length).then(|| rest.into_bytes());
        }
        let packed = rest.bytes();
        let expanded = match self {
            Self::None => return None,
            Self::Lz4 => {
                let mut out = vec![0; raw_length];
                let length = lz4_flex::block::decompress_into(packed, &mut out).ok()?;
                (length == raw_length).then_some(out)?
            }
            Self::Snappy => {
                if snap::raw::decompress_len(packed).ok()? != raw_length {
                    return None;
                }
                snap::raw::Decoder::new().decompress_vec(packed).ok()?
            }
            Self::Zstd => zstd::bulk::decompress(packed, raw_length).ok()?,
        };
        (expanded.len() == raw_length).then(|| Bytes::from(expanded))
    }
}
