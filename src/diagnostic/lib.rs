//! What is wrong in a document that an operator wrote: in which one, at which place, why, and what
//! to do about it.
//!
//! Policy files, bootstrap files, injection files, pods, arguments that go into Istio's objects and
//! resources of istiod are all refused in this one form, so that each refusal reads the same and can
//! be handed on without being taken apart as text.
//!
//! It is for documents only. What goes wrong at a boundary (a socket, a certificate, the Kubernetes
//! API) has an error type of its own there. Finding the line of a value is the business of whoever
//! holds the text.

use std::fmt;

/// One reason to refuse a document.
///
/// It prints as `SOURCE:LINE:COLUMN: PATH: REASON; FIX`, without the parts that it does not have:
///
/// ```
/// use outrigger_diagnostic::{Diagnostic, Position};
///
/// let diagnostic = Diagnostic::new("0ms is no time").at("guard.breaker.window");
/// assert_eq!(diagnostic.to_string(), "guard.breaker.window: 0ms is no time");
/// let diagnostic = diagnostic
///     .fix("write 5s")
///     .in_source("policy.yaml")
///     .on(Some(Position { line: 3, column: 5 }));
/// assert_eq!(
///     diagnostic.to_string(),
///     "policy.yaml:3:5: guard.breaker.window: 0ms is no time; write 5s"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The document: the path of a file, the name of a resource, or which one of a stream.
    pub source: Option<String>,
    /// The value inside the document.
    pub place: Place,
    /// What is wrong, without the place.
    pub reason: String,
    /// What to do about it, where there is more to say than the reason does.
    pub fix: Option<String>,
}

/// A place inside a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where the value stands in the text, if there is a text and the place in it is known.
    pub position: Option<Position>,
    /// The path of the value, such as `routes[0].cache.ttl.default` or `spec.hostNetwork`; empty
    /// for the document as a whole.
    pub path: String,
}

/// A position in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Lines, counted from 1.
    pub line: usize,
    /// Characters of the line, counted from 1.
    pub column: usize,
}

impl Diagnostic {
    /// A diagnostic that says what is wrong with a document as a whole.
    pub fn new(reason: impl Into<String>) -> Self {
        Diagnostic { source: None, place: Place::default(), reason: reason.into(), fix: None }
    }

    /// Names the value by its path inside the document.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.place.path = path.into();
        self
    }

    /// Puts a path before the one that is known, for a document that is a part of a larger one.
    /// `outer` ends in what separates the two, such as a dot.
    #[must_use]
    pub fn below(mut self, outer: &str) -> Self {
        self.place.path.insert_str(0, outer);
        self
    }

    /// Says where in its text the value stands, or, with `None`, that nobody can tell.
    #[must_use]
    pub fn on(mut self, position: Option<Position>) -> Self {
        self.place.position = position;
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Names the document that the value is in.
    #[must_use]
    pub fn in_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            f.write_str(source)?;
            if let Some(Position { line, column }) = self.place.position {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.place.path.is_empty() {
            write!(f, "{}: ", self.place.path)?;
        }
        f.write_str(&self.reason)?;
        if let Some(fix) = &self.fix {
            write!(f, "; {fix}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_printed_if_it_is_there() {
        let bare = Diagnostic::new("nothing is in it");
        let placed = bare.clone().at("a.b");
        let position = Some(Position { line: 2, column: 7 });
        for (diagnostic, shown) in [
            (bare.clone(), "nothing is in it"),
            (bare.clone().fix("write a"), "nothing is in it; write a"),
            (bare.in_source("f"), "f: nothing is in it"),
            (placed.clone(), "a.b: nothing is in it"),
            (placed.clone().fix("write a"), "a.b: nothing is in it; write a"),
            (placed.clone().in_source("f"), "f: a.b: nothing is in it"),
            (placed.clone().in_source("f").on(position), "f:2:7: a.b: nothing is in it"),
            // A line says nothing without its text.
            (placed.clone().on(position), "a.b: nothing is in it"),
            (placed.clone().in_source("f").on(position).on(None), "f: a.b: nothing is in it"),
        ] {
            assert_eq!(diagnostic.to_string(), shown);
        }
    }

    #[test]
    fn a_part_of_a_document_is_named_within_the_whole() {
        let diagnostic = Diagnostic::new("not a list").at("spec.volumes");
        let outer = diagnostic.below("spec.template.").below("items[1].");
        assert_eq!(outer.place.path, "items[1].spec.template.spec.volumes");
    }
}
