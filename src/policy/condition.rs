//! Conditions on a request that are not in the key: which requests go past the store, and which
//! replace what is stored (policy `cache.bypass` and `cache.refresh`).

use http::header::{COOKIE, HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::values::FieldName;

/// A condition on a request; exactly one of `header`, `cookie` and `query` is given.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", try_from = "ConditionFields")]
#[schemars(!try_from, deny_unknown_fields)]
pub struct ConditionDocument {
    /// The request has this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<FieldName>,
    /// The request has this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The query has this parameter, as it is written. It stays in the key unless `key.query.ignore`
    /// names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The value that it must have. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The fields as they are written, before it is known that there is exactly one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ConditionFields {
    header: Option<FieldName>,
    cookie: Option<String>,
    query: Option<String>,
    value: Option<String>,
}

impl TryFrom<ConditionFields> for ConditionDocument {
    type Error = ValueError;

    fn try_from(raw: ConditionFields) -> Result<Self, ValueError> {
        let ConditionFields { header, cookie, query, value } = raw;
        let given = [header.is_some(), cookie.is_some(), query.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(ValueError::ConditionKinds);
        }
        let named = cookie.as_deref().or(query.as_deref());
        if let Some(name) = named.filter(|name| name.is_empty() || name.contains(['=', '&', ';'])) {
            let fix = "write its name alone; the value has a key of its own";
            return Err(ValueError::form("name", name, fix));
        }
        Ok(ConditionDocument { header, cookie, query, value })
    }
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq)]
enum Of {
    Header(HeaderName),
    Cookie(Vec<u8>),
    Query(Vec<u8>),
}

/// A condition in the form in which requests are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    of: Of,
    value: Option<Vec<u8>>,
}

impl Condition {
    /// Compiles a condition; `None` for one that names nothing, which no document holds.
    pub fn of(document: &ConditionDocument) -> Option<Self> {
        let bytes = |text: &String| text.as_bytes().to_vec();
        let header = document.header.as_ref().map(|name| Of::Header(name.header_name()));
        let cookie = || document.cookie.as_ref().map(|name| Of::Cookie(bytes(name)));
        let query = || document.query.as_ref().map(|name| Of::Query(bytes(name)));
        let of = header.or_else(cookie).or_else(query)?;
        Some(Condition { of, value: document.value.as_ref().map(bytes) })
    }

    /// Whether a request with these fields and this query fulfils it. Names and values of cookies
    /// and parameters are compared as they are written.
    pub fn holds(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let fits = |value: &[u8]| self.value.as_ref().is_none_or(|wanted| wanted == value);
        match &self.of {
            Of::Header(name) => headers.get_all(name).iter().any(|line| fits(line.as_bytes())),
            Of::Cookie(name) => {
                let lines = headers.get_all(COOKIE).iter();
                let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
                pairs.map(<[u8]>::trim_ascii).any(|pair| is_named(pair, name, fits))
            }
            Of::Query(name) => {
                let pairs = query.unwrap_or_default().as_bytes().split(|byte| *byte == b'&');
                pairs.into_iter().any(|pair| is_named(pair, name, fits))
            }
        }
    }
}

/// Whether a `name=value` has this name and a value that fits; without `=` its value is empty.
fn is_named(pair: &[u8], name: &[u8], fits: impl Fn(&[u8]) -> bool) -> bool {
    match pair.strip_prefix(name) {
        Some([]) => fits(b""),
        Some([b'=', value @ ..]) => fits(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn condition(yaml: &str) -> Condition {
        Condition::of(&serde_yaml::from_str(yaml).unwrap()).unwrap()
    }

    #[test]
    fn fields_cookies_and_parameters_are_looked_at() {
        let mut headers = HeaderMap::new();
        headers.append("x-debug", HeaderValue::from_static("1"));
        headers.append(COOKIE, HeaderValue::from_static("a=1; preview=on; empty"));
        headers.append(COOKIE, HeaderValue::from_static("last=2"));
        for (yaml, query, holds) in [
            ("{header: x-debug}", None, true),
            ("{header: X-Debug, value: '1'}", None, true),
            ("{header: x-debug, value: '2'}", None, false),
            ("{header: x-other}", None, false),
            ("{cookie: preview}", None, true),
            ("{cookie: preview, value: on}", None, true),
            ("{cookie: preview, value: off}", None, false),
            ("{cookie: previe}", None, false),
            ("{cookie: empty}", None, true),
            ("{cookie: last, value: '2'}", None, true),
            ("{query: nocache}", Some("a=1&nocache"), true),
            ("{query: nocache, value: '1'}", Some("nocache=1&b"), true),
            ("{query: nocache, value: '1'}", Some("nocache=10"), false),
            ("{query: nocache}", Some("nocached=1"), false),
            ("{query: nocache}", None, false),
        ] {
            assert_eq!(condition(yaml).holds(&headers, query), holds, "{yaml} {query:?}");
        }
    }

    #[test]
    fn a_condition_looks_at_one_thing() {
        for bad in ["{}", "{header: a, cookie: b}", "{value: x}", "{query: 'a=b'}", "{other: x}"] {
            assert!(serde_yaml::from_str::<ConditionDocument>(bad).is_err(), "{bad}");
        }
    }
}
