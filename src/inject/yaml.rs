//! Writing YAML that every reader understands in the same way.
//!
//! Kubernetes reads YAML 1.1, where `yes`, `1_000` and `0644` are no strings. A writer for YAML 1.2
//! leaves them without quotes, and an environment variable `"yes"` comes out as a boolean; so strings
//! are written plain here only if no version can read them as anything else. No library for YAML lets
//! its user choose the style of each string, which is why this is written by hand.

use std::fmt::Write;

use serde_yaml::{Mapping, Value};

/// A document in block style.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Mapping(map) if !map.is_empty() => mapping(&mut out, map, 0, false),
        Value::Sequence(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 2);
            out.push('\n');
        }
    }
    out
}

/// `inline`: the first key follows a dash that is written already.
fn mapping(out: &mut String, map: &Mapping, indent: usize, inline: bool) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 || !inline {
            pad(out, indent);
        }
        match key {
            Value::String(text) if !is_plain(text) => quoted(out, text),
            other => scalar(out, other, indent),
        }
        out.push(':');
        match value {
            Value::Mapping(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2, false);
            }
            Value::Sequence(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, indent);
            }
            other => {
                out.push(' ');
                scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        pad(out, indent);
        out.push_str("- ");
        match item {
            Value::Mapping(inner) if !inner.is_empty() => mapping(out, inner, indent + 2, true),
            Value::Sequence(inner) if !inner.is_empty() => {
                out.pop();
                out.push('\n');
                sequence(out, inner, indent + 2);
            }
            other => {
                scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) if is_block(text) => block(out, text, indent),
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) => quoted(out, text),
        Value::Mapping(_) => out.push_str("{}"),
        Value::Sequence(_) => out.push_str("[]"),
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        // Kubernetes knows no tags.
        Value::Tagged(tagged) => scalar(out, &tagged.value, indent),
    }
}

/// Text of several lines that a literal block holds as it is.
fn is_block(text: &str) -> bool {
    let lines = || text.lines().filter(|line| !line.is_empty());
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
        && lines().all(|line| !line.ends_with(' '))
        && text.chars().all(|c| c == '\n' || (!c.is_control() && is_printable(c)))
}

fn block(out: &mut String, text: &str, indent: usize) {
    out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || !is_printable(c) => {
                let _ = match u32::from(c) {
                    n @ 0..=0xffff => write!(out, "\\u{n:04x}"),
                    n => write!(out, "\\U{n:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What YAML allows as it is, without the characters that a reader may take for line ends.
fn is_printable(c: char) -> bool {
    !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a string means itself without quotes, in every version of YAML.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"];
    let inner = |c: char| c.is_ascii_alphanumeric() || " _-./:@$()+=,%".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/_".contains(c));
    let named = starts
        && text.chars().all(inner)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    named || is_flag(text) || is_quantity(text)
}

/// An argument such as `--listen`.
fn is_flag(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_alphabetic())
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./".contains(c))
    })
}

/// A number with a unit, such as `64Mi`, which is never a number.
fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    ["m", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti", "s", "h"].contains(&unit)
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_that_some_version_reads_otherwise_are_quoted() {
        for text in [
            "yes",
            "NO",
            "on",
            "y",
            "0644",
            "0o17",
            "1_000",
            "12:30",
            "1e3",
            ".5",
            "+1",
            "~",
            "",
            "null",
            "True",
            "2020-01-01",
            "=",
            "<<",
            "- a",
            "a: b",
            "a #b",
            "{a}",
            "*a",
            "&a",
            "!a",
            "a:",
            " a",
            "0x1f",
            "-1",
            ".inf",
            "1Ti1",
            "%a",
            "@a",
            "`a`",
            "'a'",
            "8080",
        ] {
            let written = write(&Value::String(text.to_owned()));
            assert!(written.starts_with('"'), "{text}: {written}");
        }
        for text in ["64Mi", "50m", "registry/outrigger:1.0", "--mesh=istio", "/a/b", "a b"] {
            assert_eq!(write(&Value::String(text.to_owned())), format!("{text}\n"));
        }
    }

    #[test]
    fn block_style_is_as_kubectl_writes_it() {
        let text =
            "a:\n- b: 1\n  c:\n  - d\n- e\nf: {}\ng: []\nh: |\n  one\n\n  two\ni:\n  j: null\n";
        let value: Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(write(&value), text);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-zA-Z0-9 :#_.~'\"{}\\[\\]-]{0,12}",
            "[ -~\n]{0,20}",
            any::<String>(),
            Just("yes".to_owned()),
        ];
        let leaf = prop_oneof![
            text.prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = "[a-z0-9./-]{1,8}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5).prop_map(|pairs| {
                    let pairs = pairs.into_iter().map(|(key, value)| (Value::from(key), value));
                    Value::Mapping(pairs.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(value in any_value()) {
            let written = write(&value);
            let read: Value = serde_yaml::from_str(&written)
                .map_err(|error| TestCaseError::fail(format!("{error}\n{written}")))?;
            prop_assert_eq!(read, value, "{}", written);
        }
    }
}
