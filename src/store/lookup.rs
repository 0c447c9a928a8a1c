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
    /// Something is stored that is not believed, or was stored by other rules; the tier has counted
    /// why.
    Refused,
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
    /// The rules by which a stored response must have been stored; only shared tiers, which
    /// outlive a policy and are used by pods with different ones, look at it.
    pub rules_fingerprint: u64,
    /// Who shares the responses.
    pub scope: ShareScope,
}

impl<'a> Wanted<'a> {
    /// A key without regard to policy, for tiers within the process.
    pub fn of(digest: u128, key: &'a [u8], headers: &'a HeaderMap) -> Self {
        Wanted { digest, key, headers, rules_fingerprint: 0, scope: ShareScope::Workload }
    }
}

/// Who shares the responses that a shared tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShareScope {
    /// The pods of one workload.
    #[default]
    Workload,
    /// All workloads of the namespace that say so too.
    Namespace,
}

/// What of a route goes to shared tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRules {
    /// Whether anything does.
    pub enabled: bool,
    /// Who shares it.
    pub scope: ShareScope,
    /// Bytes of the largest body; `None` leaves the tier's own limit.
    pub object_bytes_max: Option<u64>,
    /// Shorter freshness lifetimes stay local, milliseconds; `None` leaves the tier's own limit.
    pub ttl_ms_min: Option<i64>,
}

impl Default for ShareRules {
    fn default() -> Self {
        ShareRules {
            enabled: true,
            scope: ShareScope::Workload,
            object_bytes_max: None,
            ttl_ms_min: None,
        }
    }
}
