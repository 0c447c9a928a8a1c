//! Names of one service. A mesh knows a service by several (`reviews`, `reviews.bookinfo`,
//! `reviews.bookinfo.svc.cluster.local`), and callers use them all: without this, each has copies of
//! its own, and a write under one name leaves those of the others standing.

use std::collections::{BTreeMap, HashMap};

use outrigger_diagnostic::Diagnostic;

use crate::uri::Authority;
use crate::values::HostPattern;

/// The aliases of each host, as they are written.
pub type AliasDocument = BTreeMap<HostPattern, Vec<HostPattern>>;

/// Aliases, compiled: the canonical form of a host to the service that it is taken for.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    names: HashMap<Box<str>, Box<str>>,
}

impl Aliases {
    /// Compiles documents that have been checked. Where several contradict each other, a name
    /// stands for the last service that claims it.
    pub(crate) fn of(document: &AliasDocument) -> Self {
        let mut names = HashMap::new();
        for (host, aliases) in document {
            let Ok(service) = exact(host) else { continue };
            let all = std::iter::once(host).chain(aliases).filter_map(|name| exact(name).ok());
            names.extend(all.map(|name| (Box::from(name), Box::from(service))));
        }
        Aliases { names }
    }

    /// Checks one document; a diagnostic names the host in it.
    ///
    /// # Errors
    /// A pattern in place of a name, or a name that stands for two services.
    pub(crate) fn check(document: &AliasDocument) -> Result<(), Diagnostic> {
        let mut names = HashMap::new();
        for (host, aliases) in document {
            let below = |found: Diagnostic| found.at(host.to_string());
            let service = exact(host).map_err(below)?;
            for alias in std::iter::once(host).chain(aliases) {
                let name = exact(alias).map_err(below)?;
                let before = names.insert(name, service);
                if let Some(other) = before.filter(|other| *other != service) {
                    let reason = format!("{name} is taken for {other} already; leave one out");
                    return Err(below(Diagnostic::new(reason)));
                }
            }
        }
        Ok(())
    }

    /// The service that an authority is taken for; itself if it is none's alias.
    pub(crate) fn resolve<'a>(&'a self, authority: Authority<'a>) -> Authority<'a> {
        if self.names.is_empty() {
            return authority;
        }
        let service = self.names.get(&*authority.host());
        service.map_or(authority, |service| Authority::of_valid(service))
    }
}

/// The name that a pattern stands for.
fn exact(host: &HostPattern) -> Result<&str, Diagnostic> {
    match host {
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Below(_) | HostPattern::Any => {
            Err(Diagnostic::new(format!("\"{host}\" stands for many; write each name")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(text: &str) -> Result<Aliases, Diagnostic> {
        let document: AliasDocument = serde_yaml::from_str(text).unwrap();
        Aliases::check(&document).map(|()| Aliases::of(&document))
    }

    #[test]
    fn names_of_one_service_are_one() {
        let aliases = aliases("{reviews.svc: [reviews, reviews.bookinfo]}").unwrap();
        for name in
            ["reviews", "Reviews:9080", "reviews.bookinfo:80", "reviews.svc.", "reviews.svc"]
        {
            let service = aliases.resolve(Authority::parse(name).unwrap());
            assert_eq!(service.as_sent(), "reviews.svc", "{name}");
        }
        for other in ["reviews.other", "xreviews", "[::1]:80"] {
            assert_eq!(aliases.resolve(Authority::parse(other).unwrap()).as_sent(), other);
        }
    }

    #[test]
    fn a_name_stands_for_one_service() {
        let refused = |text: &str| aliases(text).unwrap_err().to_string();
        assert_eq!(refused("{a: [x], b: [x]}"), "b: x is taken for a already; leave one out");
        for spelled in ["x.", "X", "X."] {
            let text = format!("{{a: ['{spelled}'], b: [x]}}");
            assert_eq!(refused(&text), "b: x is taken for a already; leave one out", "{spelled}");
        }
        let same = "{a: ['[0::1]'], b: ['[::1]']}";
        assert_eq!(refused(same), "b: [::1] is taken for a already; leave one out");
        assert_eq!(refused("{a: ['*.x']}"), "a: \"*.x\" stands for many; write each name");
    }
}
