//! The names under which things are stored. All begin with `or:`, the namespace and mostly the
//! workload, so that an access list can keep workloads apart.

use outrigger_semantics::{Variant, digest};

use crate::entry::Entry;
use crate::lookup::ShareScope;

/// Stands for the workload where a whole namespace shares; no workload can have this name.
const SHARED: &str = "_shared";

/// The names of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    namespace: String,
    workload: String,
}

impl Names {
    /// Names for a workload.
    ///
    /// # Errors
    /// A sentence, when one of the two cannot be part of a name.
    pub fn new(namespace: &str, workload: &str) -> Result<Self, String> {
        for (what, text) in [("namespace", namespace), ("workload", workload)] {
            let good = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            if text.is_empty() || text.len() > 253 || !text.chars().all(good) {
                return Err(format!(
                    "the {what} \"{text}\" must be 1 to 253 letters, digits, '-' or '.'"
                ));
            }
        }
        Ok(Names { namespace: namespace.to_owned(), workload: workload.to_owned() })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The workload.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// What all names of a scope begin with.
    pub fn prefix(&self, scope: ShareScope) -> String {
        let workload = match scope {
            ShareScope::Workload => self.workload.as_str(),
            ShareScope::Namespace => SHARED,
        };
        format!("or:{}:{workload}:", self.namespace)
    }

    /// The name of an entry, or of the descriptor of its variants.
    pub(super) fn entry(&self, scope: ShareScope, digest: u128) -> Vec<u8> {
        format!("{}e:{digest:032x}", self.prefix(scope)).into_bytes()
    }

    /// The name of one variant.
    pub(super) fn variant(&self, scope: ShareScope, key: &[u8], variant: &Variant) -> Vec<u8> {
        let mut text = key.to_vec();
        text.push(0);
        text.extend_from_slice(&variant.fingerprint());
        self.entry(scope, digest(&text))
    }

    /// The name of a stored response.
    pub(super) fn of(&self, scope: ShareScope, entry: &Entry) -> Vec<u8> {
        if entry.variant.is_invariant() {
            self.entry(scope, entry.digest)
        } else {
            self.variant(scope, &entry.key, &entry.variant)
        }
    }

    /// The name of the claim to fetch a key.
    pub(super) fn claim(&self, scope: ShareScope, digest: u128) -> Vec<u8> {
        format!("{}f:{digest:032x}", self.prefix(scope)).into_bytes()
    }

    /// The name of the hot keys of a span of time.
    pub(super) fn hot(&self, bucket: u64) -> Vec<u8> {
        format!("{}hot:{bucket}", self.prefix(ShareScope::Workload)).into_bytes()
    }

    /// The name of the quota's ledger. The braces are a hash tag, as for the purge log.
    pub(super) fn ledger(&self) -> Vec<u8> {
        format!("or:{{{}}}:ledger", self.namespace).into_bytes()
    }
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
