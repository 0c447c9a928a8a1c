//! Checks of the values that go into objects. A diagnostic names the argument of the command line.

use outrigger_diagnostic::Diagnostic;

/// Checks a name of Kubernetes (RFC 1123): lower case letters, digits, `-`; with `.` if it is a
/// host.
pub(super) fn check_name(what: &str, name: &str, max: usize, dots: bool) -> Result<(), Diagnostic> {
    let good =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.');
    let edges = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if edges(bytes.first()) && edges(bytes.last()) && name.len() <= max && name.bytes().all(good) {
        return Ok(());
    }
    let dot = if dots { ", '.'" } else { "" };
    let reason =
        format!("\"{name}\" is no name: write 1 to {max} lower case letters, digits, '-'{dot}");
    Err(Diagnostic::new(reason).at(what))
}

/// A label selector, `key=value`, as a YAML flow mapping.
pub(super) fn selector(labels: &[String]) -> Result<String, Diagnostic> {
    let mut pairs = Vec::with_capacity(labels.len());
    for label in labels {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        let pair = label.split_once('=').filter(|(key, value)| {
            !key.is_empty() && key.bytes().all(good) && value.bytes().all(good)
        });
        let Some((key, value)) = pair else {
            let reason = format!("\"{label}\" is no label: write app=reviews");
            return Err(Diagnostic::new(reason).at("--selector"));
        };
        // Quoted: a value such as `on` or `1` is a text.
        pairs.push(format!("{key}: \"{value}\""));
    }
    Ok(format!("{{{}}}", pairs.join(", ")))
}

/// Replaces each `${name}` of a text by its value.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = text.to_owned();
    for (name, value) in values {
        out = out.replace(&format!("${{{name}}}"), value);
    }
    debug_assert!(!out.contains("${"), "a hole is left in: {out}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for good in ["a", "reviews-v1", "0a"] {
            assert!(check_name("--name", good, 63, false).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a\nb", &"a".repeat(64)] {
            let error = check_name("--name", bad, 63, false).unwrap_err().to_string();
            assert!(error.starts_with("--name: ") && error.contains("lower case"), "{error}");
        }
        assert!(check_name("--host", "reviews.bookinfo.svc.cluster.local", 253, true).is_ok());
    }

    #[test]
    fn selectors_are_labels() {
        let labels = ["app=reviews".to_owned(), "example.com/on=1".to_owned()];
        assert_eq!(selector(&labels).unwrap(), r#"{app: "reviews", example.com/on: "1"}"#);
        for bad in ["app", "=x", "a=b\"c", "a={}"] {
            assert!(selector(&[bad.to_owned()]).unwrap_err().to_string().contains("app=reviews"));
        }
    }
}
