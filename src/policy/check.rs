//! Checks that need more than one value of a policy: names that are used twice, values that contradict
//! each other. Each check names paths relative to what it is given; the position in the text is looked
//! up once, for the first error.

use std::collections::HashSet;

use outrigger_diagnostic::Diagnostic;

use crate::aliases::Aliases;
use crate::document::{
    CacheDocument, Document, FALLBACK_ROUTE, RouteDocument, StaleDocument, TtlDocument,
};
use crate::guard;
use crate::vary;
use crate::yaml::{locate, parse_yaml};

/// More routes than this are refused.
pub const ROUTES_MAX: usize = 10_000;

/// Parses a document and checks it as a whole.
///
/// # Errors
/// The first reason to refuse it, with its place.
pub fn check(source: &str, text: &str) -> Result<Document, Diagnostic> {
    let document: Document = parse_yaml(source, text)?;
    check_document(&document).map_err(|found| {
        let position = locate(text, &found.place.path);
        found.in_source(source).on(position)
    })?;
    Ok(document)
}

fn check_document(document: &Document) -> Result<(), Diagnostic> {
    if document.routes.len() > ROUTES_MAX {
        let reason = format!("{} routes are more than {ROUTES_MAX}", document.routes.len());
        return Err(Diagnostic::new(reason).at("routes"));
    }
    Aliases::check(&document.aliases).map_err(|found| found.below("aliases."))?;
    guard::check(&document.guard).map_err(|found| found.below("guard."))?;
    let mut names = HashSet::new();
    for (at, route) in document.routes.iter().enumerate() {
        check_route(route, &mut names).map_err(|found| found.below(&format!("routes[{at}].")))?;
    }
    Ok(())
}

/// Checks one route; `names` are those of the routes before it.
fn check_route<'a>(
    route: &'a RouteDocument,
    names: &mut HashSet<&'a str>,
) -> Result<(), Diagnostic> {
    check_name(&route.name, names)?;
    check_ttl(&route.cache.ttl).map_err(|found| found.below("cache.ttl."))?;
    vary::check(&route.cache.vary).map_err(|found| found.below("cache.vary."))?;
    check_stale(&route.cache.stale).map_err(|found| found.below("cache.stale."))?;
    check_coalesce(&route.cache).map_err(|found| found.below("cache."))?;
    guard::check(&route.guard).map_err(|found| found.below("guard."))
}

fn check_name<'a>(name: &'a str, names: &mut HashSet<&'a str>) -> Result<(), Diagnostic> {
    let wrong = |reason: String, fix| Err(Diagnostic::new(reason).at("name").fix(fix));
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(good) {
        let fix = "write 1 to 63 letters, digits, '-', '_' or '.'";
        return wrong(format!("invalid name \"{name}\""), fix);
    }
    if name == FALLBACK_ROUTE {
        let reason = format!("the name \"{name}\" is taken by the built-in route");
        return wrong(reason, "choose another name");
    }
    if !names.insert(name) {
        return wrong(
            format!("the name \"{name}\" is used twice"),
            "give each route a name of its own",
        );
    }
    Ok(())
}

fn check_ttl(ttl: &TtlDocument) -> Result<(), Diagnostic> {
    let Some(max) = ttl.max else { return Ok(()) };
    for (field, value) in [("default", ttl.default), ("override", ttl.replace)] {
        if let Some(value) = value.filter(|value| *value > max) {
            return Err(Diagnostic::new(format!("{value} is longer than ttl.max, {max}"))
                .at(field)
                .fix("raise ttl.max or lower this value"));
        }
    }
    Ok(())
}

fn check_stale(stale: &StaleDocument) -> Result<(), Diagnostic> {
    let Some(status) = stale.statuses.iter().find(|status| status.0 < 400) else { return Ok(()) };
    let reason = format!("{} is no failure for which a stored response could stand in", status.0);
    let fix = "name statuses from 400 on";
    Err(Diagnostic::new(reason).at("statuses").fix(fix))
}

fn check_coalesce(cache: &CacheDocument) -> Result<(), Diagnostic> {
    match cache.coalesce_wait {
        Some(wait) if !cache.coalesce && wait.0 > 0 => {
            let reason = format!("no request waits for {wait} where coalesce is false");
            let fix = "leave out one of the two";
            Err(Diagnostic::new(reason).at("coalesceWait").fix(fix))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused_with_its_line() {
        let twice = "routes:\n  - name: a\n  - name: a\n";
        let error = check("p.yaml", twice).unwrap_err();
        assert_eq!(error.place.position.map(|at| at.line), Some(3));
        let long =
            "routes:\n  - name: a\n    cache:\n      ttl:\n        default: 2m\n        max: 1m\n";
        let error = check("p.yaml", long).unwrap_err().to_string();
        assert!(
            error.starts_with("p.yaml:5:9: routes[0].cache.ttl.default: 2m is longer"),
            "{error}"
        );
    }

    #[test]
    fn a_path_has_one_kind() {
        let text = "routes:\n  - name: a\n    match:\n      path: {exact: /a, prefix: /b}\n";
        let error = check("p.yaml", text).unwrap_err().to_string();
        assert!(error.contains("exactly one of"), "{error}");
    }
}
