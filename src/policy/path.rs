//! How a route matches the path of a request, as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ValueError;

/// One way to match a path; exactly one of the fields is given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", try_from = "PathFields")]
#[schemars(!try_from, deny_unknown_fields)]
pub struct PathDocument {
    /// This path and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// This path and everything below it, by whole segments: `/a` matches `/a/b` and not `/ab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Segments with placeholders: `/users/{id}/orders`; a last `{rest=**}` matches any remainder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// The fields as they are written, before it is known that there is exactly one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PathFields {
    exact: Option<String>,
    prefix: Option<String>,
    template: Option<String>,
}

impl TryFrom<PathFields> for PathDocument {
    type Error = ValueError;

    fn try_from(raw: PathFields) -> Result<Self, ValueError> {
        let given: Vec<&String> =
            [&raw.exact, &raw.prefix, &raw.template].into_iter().flatten().collect();
        let [text] = given[..] else {
            return Err(ValueError::PathKinds);
        };
        if !text.starts_with('/') {
            return Err(ValueError::RelativePath(text.clone()));
        }
        if text.contains(['?', '#', ' ']) {
            return Err(ValueError::MoreThanPath(text.clone()));
        }
        if let Some(template) = &raw.template {
            check_template(template)?;
        }
        Ok(PathDocument { exact: raw.exact, prefix: raw.prefix, template: raw.template })
    }
}

fn check_template(template: &str) -> Result<(), ValueError> {
    let segments: Vec<&str> = template[1..].split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let braces = segment.contains(['{', '}']);
        let whole = segment.starts_with('{') && segment.ends_with('}') && segment.len() > 2;
        if braces && !whole {
            return Err(ValueError::PartialPlaceholder((*segment).to_owned()));
        }
        if whole && segment.ends_with("=**}") && at + 1 != segments.len() {
            return Err(ValueError::RemainderBeforeEnd((*segment).to_owned()));
        }
    }
    Ok(())
}
