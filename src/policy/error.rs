//! Why a text is not a value that a document can hold. The reader of the document knows the place, and
//! makes a diagnostic of place and error.

/// What is wrong with a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A text that is not of the form that its kind of value has.
    #[error("invalid {kind} \"{text}\": {fix}")]
    Form {
        /// What was to be read, such as `duration`.
        kind: &'static str,
        /// The text as it is written.
        text: String,
        /// What to write instead.
        fix: String,
    },
    /// A response status that decides nothing about storing.
    #[error("invalid status {0}: write 200 to 599, but not 206, 304 or 416")]
    Status(u16),
    /// A partition by a claim of a token.
    #[error(
        "partition \"{0}\" needs a token that this version does not read: use header:NAME with a header that outputClaimToHeaders of your RequestAuthentication sets"
    )]
    Claim(String),
    /// A condition on nothing, or on several things.
    #[error("a condition wants exactly one of header, cookie and query")]
    ConditionKinds,
    /// A path that is given in no way, or in several.
    #[error("path wants exactly one of exact, prefix and template")]
    PathKinds,
    /// A path that is not absolute.
    #[error("path \"{0}\" must start with /")]
    RelativePath(String),
    /// A path with a query, a fragment or a space in it.
    #[error("path \"{0}\" must not hold a query, a fragment or a space")]
    MoreThanPath(String),
    /// A segment of a template with braces in it that is no placeholder.
    #[error("template segment \"{0}\" must be a placeholder as a whole, such as {{id}}")]
    PartialPlaceholder(String),
    /// A placeholder for any remainder before the end of a template.
    #[error("\"{0}\" may only be the last segment")]
    RemainderBeforeEnd(String),
}

impl ValueError {
    pub(crate) fn form(kind: &'static str, text: &str, fix: impl Into<String>) -> Self {
        ValueError::Form { kind, text: text.to_owned(), fix: fix.into() }
    }
}
