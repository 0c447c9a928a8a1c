//! Several sources of policy become one document.
//!
//! Sources are ordered from the general to the particular (mesh, namespace, workload, file). A
//! route of a later source replaces the route of the same name; new routes are added. What a
//! particular source says about a request wins where two routes are equally specific, because its
//! routes come first. What it says about the guard of all routes, and about ports, replaces what was said before,
//! point by point.

use crate::document::Document;

/// Folds documents, the most general first.
pub fn fold<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Document {
    let mut folded = Document::default();
    for document in documents {
        folded.guard = document.guard.or(&folded.guard);
        folded.inbound = document.inbound.or(&folded.inbound);
        folded.outbound = document.outbound.or(&folded.outbound);
        folded.aliases.extend(document.aliases.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::parse_yaml;

    #[test]
    fn the_particular_replaces_and_precedes_the_general() {
        let mesh = "guard: {timeout: 9s, idleTimeout: 8s}\nroutes: [{name: a}, {name: b}]";
        let mesh: Document = parse_yaml("mesh", mesh).unwrap();
        let own = "guard: {timeout: 1s}\nroutes: [{name: c}, {name: b, cache: {enabled: false}}]";
        let own: Document = parse_yaml("workload", own).unwrap();
        let folded = fold([&mesh, &own]);
        let names: Vec<&str> = folded.routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert!(!folded.routes[2].cache.enabled);
        let (total, idle) = (folded.guard.timeout, folded.guard.idle_timeout);
        assert_eq!((total.map(|t| t.0), idle.map(|t| t.0)), (Some(1000), Some(8000)));
    }
}
