//! Normalising a query (policy `key.query`): the result is both part of the key and what the
//! upstream gets, so that no parameter outside the key can change a stored response.

use crate::values::NamePattern;

/// How a query is normalised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryRules {
    /// Names of the parameters to remove.
    pub ignore: Vec<NamePattern>,
    /// If given, the only parameters to keep.
    pub allow: Option<Vec<NamePattern>>,
    /// Whether to order parameters by name; equal names keep their order.
    pub sort: bool,
}

impl QueryRules {
    /// Whether queries are left as they are.
    pub fn is_identity(&self) -> bool {
        self.ignore.is_empty() && self.allow.is_none() && !self.sort
    }

    /// The normalised query, without `?`. Parameters are split at `&` only and compared as they
    /// are written: guessing at encodings is how cloaked parameters slip through.
    pub fn apply(&self, query: &str) -> String {
        let mut kept: Vec<(&str, &str)> = query
            .split('&')
            .map(|pair| (pair.split('=').next().unwrap_or(pair), pair))
            .filter(|(name, _)| self.keeps(name.as_bytes()))
            .collect();
        if self.sort {
            kept.sort_by(|a, b| a.0.cmp(b.0));
        }
        kept.iter().map(|(_, pair)| *pair).collect::<Vec<_>>().join("&")
    }

    fn keeps(&self, name: &[u8]) -> bool {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.iter().any(|p| p.matches(name)));
        allowed && !self.ignore.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    #[test]
    fn parameters_are_dropped_and_ordered() {
        let rules = QueryRules {
            ignore: vec![pattern("utm_*"), pattern("fbclid")],
            allow: None,
            sort: true,
        };
        assert_eq!(rules.apply("b=2&utm_source=x&a=1&fbclid=z&b=1"), "a=1&b=2&b=1");
        assert_eq!(rules.apply("utm_source=x"), "");
    }

    #[test]
    fn allow_keeps_nothing_else() {
        let rules = QueryRules { allow: Some(vec![pattern("page")]), ..QueryRules::default() };
        assert_eq!(rules.apply("page=1&pages=2&x"), "page=1");
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(query in "[a-c=&;%]{0,24}") {
            let rules = QueryRules { ignore: vec![pattern("a*")], allow: None, sort: true };
            let once = rules.apply(&query);
            proptest::prop_assert_eq!(rules.apply(&once), once);
        }
    }
}
