//! Several sources of policy become one document.
//!
//! Sources are ordered from the general to the particular (mesh, namespace, workload, file). A
//! route of a later source replaces the route of the same name; new routes are added. What a
//! particular source says about a request wins where two routes are equally specific, because its
//! routes come first. What it says about the guard of all routes, and about ports, replaces what was
//! said before, point by point. Fields that change responses silently are added up.

use crate::aliases::AliasDocument;
use crate::document::Document;

/// Folds documents, the most general first.
pub fn fold<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Document {
    let mut folded = Document::default();
    for document in documents {
        folded.guard = document.guard.or(&folded.guard);
        folded.inbound = document.inbound.or(&folded.inbound);
        folded.outbound = document.outbound.or(&folded.outbound);
        fold_aliases(&mut folded.aliases, &document.aliases);
        folded.silent_headers.extend(document.silent_headers.iter().cloned());
        let mut added = Vec::new();
        for route in &document.routes {
            match folded.routes.iter_mut().find(|have| have.name == route.name) {
                Some(have) => *have = route.clone(),
                None => added.push(route.clone()),
            }
        }
        added.append(&mut folded.routes);
        folded.routes = added;
    }
    folded
}

/// Takes in the aliases of a more particular document: a name stands for the service that this one
/// says, whatever was said before.
fn fold_aliases(folded: &mut AliasDocument, more: &AliasDocument) {
    for (service, names) in more {
        for others in folded.values_mut() {
            others.retain(|name| name != service && !names.contains(name));
        }
        let mut all = names.clone();
        for name in names {
            // A service that is now an alias brings its own along.
            all.extend(folded.remove(name).unwrap_or_default());
        }
        all.extend(folded.remove(service).unwrap_or_default());
        folded.insert(service.clone(), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::Authority;
    use crate::yaml::parse_yaml;

    #[test]
    fn a_name_stands_for_what_the_particular_says() {
        let of = |text: &str| parse_yaml::<Document>("p", text).unwrap();
        let resolved = |documents: [&str; 2]| {
            let documents = documents.map(of);
            let aliases = crate::aliases::Aliases::of(&fold(&documents).aliases);
            ["a", "b", "c", "x", "z"]
                .map(|name| aliases.resolve(Authority::of_valid(name)).to_string())
        };
        let found = resolved(["aliases: {z: [x]}", "aliases: {a: [x]}"]);
        assert_eq!(found, ["a", "b", "c", "a", "z"]);
        let found = resolved(["aliases: {a: [b]}", "aliases: {b: [c]}"]);
        assert_eq!(found, ["a", "b", "b", "x", "z"]);
        let found = resolved(["aliases: {b: [c]}", "aliases: {a: [b]}"]);
        assert_eq!(found, ["a", "a", "a", "x", "z"]);
    }

    #[test]
    fn the_particular_replaces_and_precedes_the_general() {
        let mesh = "guard: {timeout: 9s, idleTimeout: 8s}\nsilentHeaders: [x-a]\n\
                    routes: [{name: a}, {name: b}]";
        let mesh: Document = parse_yaml("mesh", mesh).unwrap();
        let own = "guard: {timeout: 1s}\nsilentHeaders: [x-b]\nroutes: [{name: c}, {name: b, cache: {enabled: false}}]";
        let own: Document = parse_yaml("workload", own).unwrap();
        let folded = fold([&mesh, &own]);
        let names: Vec<&str> = folded.routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert!(!folded.routes[2].cache.enabled);
        // What is unsafe to leave out in the mesh is so everywhere.
        assert_eq!(folded.silent_headers.len(), 2);
        let (total, idle) = (folded.guard.timeout, folded.guard.idle_timeout);
        assert_eq!((total.map(|t| t.0), idle.map(|t| t.0)), (Some(1000), Some(8000)));
    }
}
