//! Why a policy or bootstrap file was refused: where, what, and how to mend it.

use std::fmt;

/// One reason to refuse a document as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The source: a file path or the name of a control plane resource.
    pub source: String,
    /// Line and column, counted from 1, where known.
    pub at: Option<(usize, usize)>,
    /// The path of the value inside the document, such as `routes[0].cache.ttl.default`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it, where there is more to say than the reason does.
    pub fix: Option<String>,
}

impl std::error::Error for PolicyError {}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        if let Some(fix) = &self.fix {
            write!(f, "; {fix}")?;
        }
        Ok(())
    }
}

impl PolicyError {
    /// An error about the value at `path`, whose line is looked up in the text.
    pub fn at_path(source: &str, text: &str, path: &str, reason: impl Into<String>) -> Self {
        PolicyError {
            source: source.to_owned(),
            at: locate(text, path),
            path: path.to_owned(),
            reason: reason.into(),
            fix: None,
        }
    }

    /// Adds what to do.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn from_yaml(source: &str, error: &serde_yaml::Error) -> Self {
        let at = error.location().map(|place| (place.line(), place.column()));
        let mut text = error.to_string();
        if let Some(cut) = text.rfind(" at line ") {
            text.truncate(cut);
        }
        let (path, reason) = split_path(&text);
        let fix = suggestion(reason);
        PolicyError {
            source: source.to_owned(),
            at,
            path: path.to_owned(),
            reason: reason.to_owned(),
            fix,
        }
    }
}

/// Parses a YAML document into `T`.
///
/// # Errors
/// The first reason, with its place.
pub fn parse_yaml<T: serde::de::DeserializeOwned + Default>(
    source: &str,
    text: &str,
) -> Result<T, PolicyError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    serde_yaml::from_str(text).map_err(|error| PolicyError::from_yaml(source, &error))
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
    // Letter case is the likeliest slip of all.
    let lower = wrong.to_ascii_lowercase();
    rest.split('`')
        .skip(1)
        .step_by(2)
        .map(|known| (strsim::levenshtein(&lower, &known.to_ascii_lowercase()), known))
        .filter(|(steps, known)| *steps <= 1 + known.len() / 3)
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"))
}

/// Finds the line of a path in block-style YAML, for errors found after parsing. A guess that
/// stays silent where the text is written in another style.
fn locate(text: &str, path: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    let lines: Vec<&str> = text.lines().collect();
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
            let indent = |line: &str| line.len() - line.trim_start().len();
            let dash = (at + 1..lines.len()).find(|i| lines[*i].trim_start().starts_with("- "))?;
            let depth = indent(lines[dash]);
            let item = (dash..lines.len())
                .filter(|i| indent(lines[*i]) == depth && lines[*i].trim_start().starts_with("- "))
                .nth(index)?;
            found = Some(item);
            from = item;
        }
    }
    found.map(|i| (i + 1, lines[i].len() - lines[i].trim_start().len() + 1))
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
        assert_eq!(locate(text, "routes[1].name"), Some((3, 3)));
        assert_eq!(locate(text, "routes[1].guard.timeout"), Some((5, 7)));
    }
}
