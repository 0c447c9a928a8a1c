//! Reading YAML so that an error names the line, the path and the nearest known word. Policy files and
//! bootstrap files are both read here.

use outrigger_diagnostic::{Diagnostic, Position};

/// Parses a YAML document into `T`.
///
/// # Errors
/// The first reason, with its place.
pub fn parse_yaml<T: serde::de::DeserializeOwned + Default>(
    source: &str,
    text: &str,
) -> Result<T, Diagnostic> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    serde_yaml::from_str(text).map_err(|error| unreadable(source, &error))
}

/// The diagnostic for an error of the YAML library, whose text holds the path and the position.
fn unreadable(source: &str, error: &serde_yaml::Error) -> Diagnostic {
    let position =
        error.location().map(|place| Position { line: place.line(), column: place.column() });
    let mut text = error.to_string();
    if let Some(cut) = text.rfind(" at line ") {
        text.truncate(cut);
    }
    let (path, reason) = split_path(&text);
    let fix = suggestion(reason);
    let diagnostic = Diagnostic::new(reason).at(path).in_source(source).on(position);
    match fix {
        Some(fix) => diagnostic.fix(fix),
        None => diagnostic,
    }
}

/// Splits the leading path that the YAML library puts before its message.
fn split_path(text: &str) -> (&str, &str) {
    match text.split_once(": ") {
        Some((path, reason))
            if !path.is_empty()
                && path.chars().all(|c| c.is_ascii_alphanumeric() || ".[]_-*?".contains(c)) =>
        {
            (path, reason)
        }
        _ => ("", text),
    }
}

/// For an unknown field or variant: the nearest known one.
fn suggestion(reason: &str) -> Option<String> {
    let rest =
        reason.strip_prefix("unknown field `").or(reason.strip_prefix("unknown variant `"))?;
    let (wrong, rest) = rest.split_once('`')?;
    // Wrong letter case is the most frequent mistake, so it costs nothing.
    let lower = wrong.to_ascii_lowercase();
    rest.split('`')
        .skip(1)
        .step_by(2)
        .map(|known| (strsim::levenshtein(&lower, &known.to_ascii_lowercase()), known))
        .filter(|(steps, known)| *steps <= 1 + known.len() / 3)
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"))
}

/// Finds the position of a path in block-style YAML, for errors that are found after parsing. It
/// looks for keys line by line, and gives `None` where the text is written in another style.
pub fn locate(text: &str, path: &str) -> Option<Position> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let mut from = 0;
    let mut found = None;
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let key = format!("{name}:");
        let at = (from..lines.len())
            .find(|i| lines[*i].trim_start().trim_start_matches("- ").starts_with(&key))?;
        found = Some(at);
        from = at;
        if let Some(index) = index {
            let dash = (at + 1..lines.len()).find(|i| lines[*i].trim_start().starts_with("- "))?;
            let depth = indent(lines[dash]);
            let item = (dash..lines.len())
                .filter(|i| indent(lines[*i]) == depth && lines[*i].trim_start().starts_with("- "))
                .nth(index)?;
            found = Some(item);
            from = item;
        }
    }
    found.map(|i| Position { line: i + 1, column: indent(lines[i]) + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    fn refused(text: &str) -> String {
        match parse_yaml::<Document>("p.yaml", text) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_place() {
        let text = "routes:\n  - name: a\n    cache:\n      ttl:\n        default: 30\n";
        assert_eq!(
            refused(text),
            "p.yaml:5:18: routes[0].cache.ttl.default: invalid duration \"30\": add a unit, for \
             example 30s (units: ms, s, m, h, d)"
        );
    }

    #[test]
    fn a_misspelt_field_gets_a_suggestion() {
        let text = "routes:\n  - name: a\n    cache:\n      stale: {whileRevalidat: 1s}\n";
        let error = refused(text);
        assert!(error.starts_with("p.yaml:4:"), "{error}");
        assert!(error.ends_with("did you mean `whileRevalidate`?"), "{error}");
    }

    #[test]
    fn an_empty_document_is_an_empty_policy() {
        assert_eq!(parse_yaml::<Document>("p", "# nothing\n\n"), Ok(Document::default()));
    }

    #[test]
    fn paths_are_found_in_the_text() {
        let text = "routes:\n  - name: a\n  - name: b\n    guard:\n      timeout: 1s\n";
        let found = |path| locate(text, path).map(|at| (at.line, at.column));
        assert_eq!(found("routes[1].name"), Some((3, 3)));
        assert_eq!(found("routes[1].guard.timeout"), Some((5, 7)));
    }
}
