//! The names under which values are stored in Redis. All begin with `or:` and the namespace, most of
//! them with the workload, so that an ACL can keep workloads apart.

use outrigger_semantics::{Variant, digest};

use crate::entry::Entry;
use crate::lookup::ShareScope;

/// Takes the place of the workload where a whole namespace shares. No workload can have this name.
const WHOLE_NAMESPACE: &str = "_shared";

/// Why a namespace or a workload cannot be part of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} \"{text}\" must be 1 to 253 letters, digits, '-' or '.'")]
pub struct NameError {
    /// `namespace` or `workload`.
    pub what: &'static str,
    /// What it was given as.
    pub text: String,
}

/// The names of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    namespace: String,
    workload: String,
}

impl Names {
    /// The names of a workload in a namespace.
    ///
    /// # Errors
    /// When one of the two is empty, too long, or holds another character than letters, digits, `-`
    /// and `.`.
    pub fn new(namespace: &str, workload: &str) -> Result<Self, NameError> {
        for (what, text) in [("namespace", namespace), ("workload", workload)] {
            let good = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            if text.is_empty() || text.len() > 253 || !text.chars().all(good) {
                return Err(NameError { what, text: text.to_owned() });
            }
        }
        Ok(Names { namespace: namespace.to_owned(), workload: workload.to_owned() })
    }

    /// The namespace, as given to [`Names::new`].
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The workload, as given to [`Names::new`].
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// The prefix of all names of a scope.
    pub fn prefix(&self, scope: ShareScope) -> String {
        let workload = match scope {
            ShareScope::Workload => self.workload.as_str(),
            ShareScope::Namespace => WHOLE_NAMESPACE,
        };
        format!("or:{}:{workload}:", self.namespace)
    }

    /// The name of an entry, or of the descriptor of its variants.
    pub(super) fn entry(&self, scope: ShareScope, digest: u128) -> Vec<u8> {
        format!("{}e:{digest:032x}", self.prefix(scope)).into_bytes()
    }

    /// The name of one variant of a key.
    pub(super) fn variant(&self, scope: ShareScope, key: &[u8], variant: &Variant) -> Vec<u8> {
        self.entry(scope, variant_digest(key, variant))
    }

    /// The name of a stored response.
    pub(super) fn of(&self, scope: ShareScope, entry: &Entry) -> Vec<u8> {
        if entry.variant.is_invariant() {
            self.entry(scope, entry.digest)
        } else {
            self.variant(scope, &entry.key, &entry.variant)
        }
    }

    /// The name of the claim by which one pod fetches for all: a key, or a `variant` of it, where it
    /// is known by what its responses vary.
    pub(super) fn claim(
        &self,
        scope: ShareScope,
        digest: u128,
        variant: Option<(&[u8], &Variant)>,
    ) -> Vec<u8> {
        let digest = variant.map_or(digest, |(key, variant)| variant_digest(key, variant));
        format!("{}f:{digest:032x}", self.prefix(scope)).into_bytes()
    }

    /// The name of the sum of hits in one span of time.
    pub(super) fn hot(&self, bucket: u64) -> Vec<u8> {
        format!("{}hot:{bucket}", self.prefix(ShareScope::Workload)).into_bytes()
    }

    /// The name of the quota's ledger. The braces are a hash tag, as for the purge log.
    pub(super) fn ledger(&self) -> Vec<u8> {
        format!("or:{{{}}}:ledger", self.namespace).into_bytes()
    }
}

/// Tells one variant of a key apart from all other variants and keys.
fn variant_digest(key: &[u8], variant: &Variant) -> u128 {
    let mut text = key.to_vec();
    text.push(0);
    text.extend_from_slice(&variant.fingerprint());
    digest(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_into_other_prefixes() {
        assert!(Names::new("shop", "cart").is_ok());
        for (namespace, workload) in [("", "a"), ("a:b", "c"), ("a", "_shared"), ("a", "b*")] {
            assert!(Names::new(namespace, workload).is_err(), "{namespace} {workload}");
        }
        let names = Names::new("shop", "cart").unwrap();
        let name = String::from_utf8(names.entry(ShareScope::Workload, 0xab)).unwrap();
        assert_eq!(name, format!("or:shop:cart:e:{:032x}", 0xab));
        assert_eq!(names.prefix(ShareScope::Namespace), "or:shop:_shared:");
        assert_eq!(names.ledger(), b"or:{shop}:ledger");
    }
}
