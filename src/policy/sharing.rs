//! Values that say who shares what is stored: whose responses are kept apart, and how coherent the
//! copies of several pods are.

use std::fmt;

use crate::error::ValueError;
use crate::text::text_value;
use crate::values::FieldName;

/// What a route's responses are kept apart by: `none`, `peer` or `namespace` of the authenticated
/// caller, or `header:NAME` with the value of a header field that carries an identity.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PartitionBy {
    /// One copy for everybody.
    #[default]
    None,
    /// One copy for each value of this field.
    Header(FieldName),
    /// One copy for each calling workload, by its authenticated identity. Callers without one are
    /// not answered from the store.
    Peer,
    /// One copy for each namespace of calling workloads. Callers without an identity are not
    /// answered from the store.
    Namespace,
}

impl PartitionBy {
    /// Reads a partition as a policy has it.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some(("header", name)) => FieldName::parse(name).map(Self::Header),
            Some(("claim", _)) => Err(ValueError::Claim(text.to_owned())),
            _ => match text {
                "none" => Ok(Self::None),
                "peer" => Ok(Self::Peer),
                "namespace" => Ok(Self::Namespace),
                _ => {
                    let fix = "write none, peer, namespace or header:NAME";
                    Err(ValueError::form("partition", text, fix))
                }
            },
        }
    }
}

impl fmt::Display for PartitionBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Peer => f.write_str("peer"),
            Self::Namespace => f.write_str("namespace"),
        }
    }
}

text_value!(
    PartitionBy,
    "Partition",
    "none, peer, namespace, or header:NAME",
    "^(none|peer|namespace|header:.+)$"
);

/// How coherent the copies of several pods are, the weakest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, strum::Display, strum::EnumString,
)]
#[strum(serialize_all = "lowercase")]
pub enum Consistency {
    /// Each pod follows the purge log at its own pace.
    #[default]
    Eventual,
    /// A client that hands back its `Outrigger-Session` sees its own writes, and never an older
    /// state than it has seen before, through any pod.
    Causal,
    /// Reads and writes through any pod are linearizable.
    Strong,
}

impl Consistency {
    /// Reads a level as a policy has it.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let fix = "write eventual, causal or strong";
        text.parse().map_err(|_| ValueError::form("consistency", text, fix))
    }
}

text_value!(Consistency, "Consistency", "eventual, causal or strong", "^(eventual|causal|strong)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_version_cannot_do_is_refused_with_a_reason() {
        assert_eq!(PartitionBy::parse("peer"), Ok(PartitionBy::Peer));
        assert!(PartitionBy::parse("claim:sub").unwrap_err().to_string().contains("header:NAME"));
        for level in ["eventual", "causal", "strong"] {
            assert_eq!(
                Consistency::parse(level).map(|read| read.to_string()),
                Ok(level.to_owned())
            );
        }
        assert!(Consistency::parse("linear").unwrap_err().to_string().contains("eventual"));
    }
}
