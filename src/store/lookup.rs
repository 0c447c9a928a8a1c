//! What a tier answers, and by what it is asked.

use std::sync::Arc;

use http::HeaderMap;

use crate::entry::Entry;

/// The answer of a tier.
#[derive(Debug)]
pub enum Lookup {
    /// A stored response for this key whose selecting fields match.
    Hit(Arc<Entry>),
    /// Nothing to use.
    Miss(Miss),
    /// The tier could not answer.
    Unavailable(Unavailable),
}

/// Why a tier has nothing to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing is stored under the key.
    Uri,
    /// Something is stored, but for other selecting fields (RFC 9111 §4.1).
    Variant,
}

/// Why a tier could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It did not answer within its deadline.
    Deadline,
    /// Its breaker is open.
    Breaker,
    /// It failed.
    Error,
}

impl Unavailable {
    /// The stable name used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Breaker => "breaker",
            Self::Error => "error",
        }
    }
}

/// What is looked up: the canonical key with its digest, and the request's fields, which choose
/// the variant.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Digest of the canonical key.
    pub digest: u128,
    /// The canonical key.
    pub key: &'a [u8],
    /// Header fields of the request.
    pub headers: &'a HeaderMap,
}
