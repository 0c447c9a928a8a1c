//! What remains of a value once its head has been read, and why a value is refused.

use bytes::Bytes;

/// Why a value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Refused {
    /// It was not written by Outrigger, or in a version of the format that this reader does not know.
    Foreign,
    /// It was written by Outrigger and is damaged.
    Corrupt,
    /// It is sealed with a key that is not there, or by somebody else, or for another name.
    Seal,
    /// It is not sealed although it has to be.
    Unsealed,
}

impl Refused {
    /// The stable name in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The part of a value behind its head, without copying it.
pub(super) struct Rest {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Rest {
    /// Everything in `buffer` from `from` on.
    pub(super) fn whole(buffer: Vec<u8>, from: usize) -> Self {
        let to = buffer.len();
        Rest { buffer, from, to }
    }

    /// The part of `buffer` between two positions; `from` must not be behind `to`, nor `to` behind
    /// the end.
    pub(super) fn part(buffer: Vec<u8>, from: usize, to: usize) -> Self {
        Rest { buffer, from, to }
    }

    /// The bytes behind the head.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// The bytes as an owned buffer, still without copying them.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.buffer).slice(self.from..self.to)
    }
}
