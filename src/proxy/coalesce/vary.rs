//! By which fields the responses of a key are known to vary, so that requests for different
//! variants do not wait for each other's fetch.
//!
//! What is known here chooses only whom a request waits for. Whether it may have what comes is
//! decided by the response itself (RFC 9111 §4.1), so that outdated knowledge costs a fetch and
//! never gives anybody another one's variant.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use moka::sync::Cache;
use outrigger_semantics::{Variant, digest};

/// Bytes of names, with what it takes to keep them.
const BYTES_MAX: u64 = 4 << 20;
/// Bytes that a key takes beside its names.
const KEY_BYTES: usize = 128;

/// The fields by which the responses of keys were last seen to vary.
#[derive(Debug)]
pub(crate) struct KnownVary(Cache<u128, Arc<[HeaderName]>>);

impl KnownVary {
    pub(crate) fn new() -> Self {
        let weigh = |_: &u128, names: &Arc<[HeaderName]>| {
            let bytes: usize = names.iter().map(|name| 32 + name.as_str().len()).sum();
            u32::try_from(KEY_BYTES + bytes).unwrap_or(u32::MAX)
        };
        KnownVary(Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build())
    }

    /// Remembers by what a response of this key varies.
    pub(crate) fn learn(&self, key: u128, variant: &Variant) {
        let known = self.0.get(&key);
        if known.iter().flat_map(|names| names.iter()).eq(variant.names()) {
            return;
        }
        if variant.is_invariant() {
            self.0.invalidate(&key);
        } else {
            self.0.insert(key, variant.names().cloned().collect());
        }
    }

    /// What tells the fetches for a key apart: 0, or by what its responses are known to vary and the
    /// values that the request has. Without knowledge the `stored` response says by what.
    pub(crate) fn hint(&self, key: u128, request: &HeaderMap, stored: Option<&Variant>) -> u64 {
        match (self.0.get(&key), stored) {
            (Some(names), _) => hint(names.iter(), request),
            (None, Some(stored)) => hint(stored.names(), request),
            (None, None) => 0,
        }
    }
}

/// The hint of a request for responses that vary by these fields.
pub(crate) fn hint<'a>(
    names: impl IntoIterator<Item = &'a HeaderName>,
    request: &HeaderMap,
) -> u64 {
    let variant = Variant::of_names(names, request);
    if variant.is_invariant() {
        return 0;
    }
    // Zero stands for responses that do not vary, or are not known to.
    (digest(&variant.fingerprint()) as u64).max(1)
}
