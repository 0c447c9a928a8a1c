//! By what the responses of a route vary: request fields whose naming in `Vary` is ignored, and fields
//! that are folded into few values before the lookup (policy `cache.vary`).

use std::borrow::Cow;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName};
use outrigger_diagnostic::Diagnostic;
use outrigger_semantics::negotiate::{self, Folded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::text::text_value;
use crate::values::FieldName;

/// By what responses vary.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct VaryDocument {
    /// Request fields that select no response although `Vary` names them: the first response that
    /// comes is served to all.
    pub ignore: Vec<FieldName>,
    /// Codings that `Accept-Encoding` is reduced to before the lookup, for the upstream too, in the
    /// order in which they are sent. Absent: it stays as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encodings: Option<Vec<Coding>>,
    /// Languages of which `Accept-Language` is reduced to the one that the client wants most, for the
    /// upstream too. Absent: it stays as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<LanguageTag>>,
}

/// A content coding, in lower case (RFC 9110 §8.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coding(String);

impl Coding {
    /// Reads a coding.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let lower = text.to_ascii_lowercase();
        let token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if lower.is_empty() || lower == "identity" || !lower.chars().all(token) {
            let fix = "write a coding such as br or gzip; identity is always there";
            return Err(ValueError::form("coding", text, fix));
        }
        Ok(Coding(lower))
    }
}

impl std::fmt::Display for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Coding, "Coding", "a content coding such as br or gzip", "^[0-9A-Za-z._-]+$");

/// A language tag (RFC 5646).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageTag(String);

impl LanguageTag {
    /// Reads a language tag.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let subtag = |part: &str| {
            matches!(part.len(), 1..=8) && part.chars().all(|c| c.is_ascii_alphanumeric())
        };
        if !text.split('-').all(subtag) {
            let fix = "write a language tag such as de or pt-BR";
            return Err(ValueError::form("language", text, fix));
        }
        Ok(LanguageTag(text.to_owned()))
    }
}

impl std::fmt::Display for LanguageTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(
    LanguageTag,
    "LanguageTag",
    "a language tag such as de or pt-BR",
    "^[0-9A-Za-z]{1,8}(-[0-9A-Za-z]{1,8})*$"
);

/// Fields whose naming in `Vary` cannot be ignored, and what to do instead.
const NOT_IGNORED: [(&str, &str); 4] = [
    ("*", "leave it out; what varies by everything is never the same response"),
    ("authorization", "keep users apart by partition; their responses are not for all"),
    (
        "cookie",
        "name the cookies that select responses in key.cookies, or the rest in harmlessCookies",
    ),
    ("accept-encoding", "use vary.encodings; clients would get codings that they do not know"),
];

/// Checks what of a document needs more than one value.
///
/// # Errors
/// A field that must not be ignored.
pub(crate) fn check(vary: &VaryDocument) -> Result<(), Diagnostic> {
    for (name, fix) in NOT_IGNORED {
        if vary.ignore.iter().any(|ignored| ignored.to_string() == name) {
            let reason = format!("a Vary by {name} cannot be ignored");
            return Err(Diagnostic::new(reason).at("ignore").fix(fix));
        }
    }
    Ok(())
}

/// By what the responses of a route vary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VaryRules {
    /// Request fields that select no response.
    pub ignored: Vec<HeaderName>,
    encodings: Option<Vec<String>>,
    languages: Option<Vec<String>>,
}

impl VaryRules {
    pub(crate) fn of(document: &VaryDocument) -> Self {
        let codings = |list: &Vec<Coding>| list.iter().map(ToString::to_string).collect();
        let tags = |list: &Vec<LanguageTag>| list.iter().map(ToString::to_string).collect();
        VaryRules {
            ignored: document.ignore.iter().map(FieldName::header_name).collect(),
            encodings: document.encodings.as_ref().map(codings),
            languages: document.languages.as_ref().map(tags),
        }
    }

    /// The fields of a request by which its response is looked up, and with which the upstream is
    /// asked: borrowed where nothing changes.
    pub fn folded<'a>(&self, headers: &'a HeaderMap) -> Cow<'a, HeaderMap> {
        let mut folded = Cow::Borrowed(headers);
        if let Some(offered) = &self.encodings {
            apply(&mut folded, &ACCEPT_ENCODING, negotiate::encodings(headers, offered));
        }
        if let Some(offered) = &self.languages {
            apply(&mut folded, &ACCEPT_LANGUAGE, negotiate::languages(headers, offered));
        }
        folded
    }
}

fn apply(headers: &mut Cow<'_, HeaderMap>, name: &HeaderName, becomes: Folded) {
    match becomes {
        Folded::AsSent => {}
        Folded::Absent => {
            headers.to_mut().remove(name);
        }
        Folded::Value(value) => {
            let mut lines = headers.get_all(name).iter();
            if lines.next() != Some(&value) || lines.next().is_some() {
                headers.to_mut().insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn nothing_is_copied_where_nothing_changes() {
        let rules = VaryRules {
            encodings: Some(vec!["gzip".to_owned()]),
            languages: Some(vec!["de".to_owned()]),
            ..VaryRules::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(matches!(rules.folded(&headers), Cow::Borrowed(_)));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("fr"));
        let folded = rules.folded(&headers);
        assert_eq!(folded.get_all(ACCEPT_ENCODING).iter().collect::<Vec<_>>(), ["gzip"]);
        assert!(!folded.contains_key(ACCEPT_LANGUAGE));
        assert!(matches!(VaryRules::default().folded(&headers), Cow::Borrowed(_)));
    }

    #[test]
    fn what_one_user_may_be_told_by_is_not_ignored() {
        for (name, _) in NOT_IGNORED {
            let ignore = vec![FieldName::parse(name).unwrap()];
            assert!(check(&VaryDocument { ignore, ..VaryDocument::default() }).is_err(), "{name}");
        }
        let ignore = vec![FieldName::parse("User-Agent").unwrap()];
        assert!(check(&VaryDocument { ignore, ..VaryDocument::default() }).is_ok());
    }
}
