//! The question that a tier is asked, its answer, and which responses may be shared.

use std::sync::Arc;

use http::HeaderMap;

use crate::entry::Entry;

/// The answer of a tier.
#[derive(Debug)]
pub enum Lookup {
    /// A stored response for this key whose selecting fields match.
    Hit(Arc<Entry>),
    /// No stored response that can be used.
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
    /// The stored value is damaged or foreign, or was stored by other caching rules. The tier has
    /// counted why.
    Refused,
}

/// Why a tier could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Unavailable {
    /// It did not answer within its deadline.
    Deadline,
    /// Its breaker is open.
    Breaker,
    /// It answered with an error, or there is no connection to it.
    Error,
}

impl Unavailable {
    /// The stable name used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What is looked up: the canonical key with its digest, and the request's fields, which choose
/// the variant.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Digest of the canonical key.
    pub digest: u128,
    /// The canonical key, which stored keys are compared with.
    pub key: &'a [u8],
    /// Header fields of the request.
    pub headers: &'a HeaderMap,
    /// Fingerprint of the rules by which the response must have been stored. Only tiers that
    /// several pods share compare it: they outlive a policy, and pods may have different ones.
    pub rules_fingerprint: u64,
    /// Who shares the responses that are asked for.
    pub scope: ShareScope,
}

impl<'a> Wanted<'a> {
    /// A key without regard to policy, for the memory tier.
    pub fn of(digest: u128, key: &'a [u8], headers: &'a HeaderMap) -> Self {
        Wanted { digest, key, headers, rules_fingerprint: 0, scope: ShareScope::Workload }
    }
}

/// Who shares the responses in a tier below memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShareScope {
    /// The pods of one workload.
    #[default]
    Workload,
    /// All workloads of the namespace whose rules say so too.
    Namespace,
}

/// Which responses of a route go to the tiers that pods share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareRules {
    /// Whether any responses do.
    pub enabled: bool,
    /// Which pods share the responses.
    pub scope: ShareScope,
    /// Bytes of the largest body; `None` leaves the tier's own limit.
    pub object_bytes_max: Option<u64>,
    /// Responses with a shorter freshness lifetime stay in memory, milliseconds; `None` leaves the
    /// tier's own limit.
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
