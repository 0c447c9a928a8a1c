//! Why a pod or an injection file was refused: where, what, and how to mend it.

use std::fmt;

/// One reason not to inject into a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The path of the value inside the pod, such as `spec.hostNetwork`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

impl Refusal {
    pub(crate) fn new(
        path: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Refusal { path: path.into(), reason: reason.into(), fix: fix.into() }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.reason, self.fix)
    }
}

/// Why an injection file or a template was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct ConfigError {
    /// The file, or what else it came from.
    pub origin: String,
    /// Place, reason and fix.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(origin: &str, reason: impl Into<String>) -> Self {
        ConfigError { origin: origin.to_owned(), reason: reason.into() }
    }
}
