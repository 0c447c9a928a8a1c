//! Why a bootstrap document or a command is refused. These types sit below everything else of the
//! composition, so that each part can return them; exit codes are the command line's.

use outrigger_diagnostic::Diagnostic;

/// Why a command failed. The variant decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The user's input is wrong: arguments, files, or what they say.
    #[error("{0}")]
    Usage(String),
    /// The process could not start, or a running one could not be reached.
    #[error("{0}")]
    Startup(String),
    /// It was done, but not by every pod.
    #[error("{0}")]
    Incomplete(String),
}

impl From<Diagnostic> for CliError {
    fn from(found: Diagnostic) -> Self {
        CliError::Usage(found.to_string())
    }
}

/// Why a bootstrap document cannot work: the field, the reason and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct PlanError {
    /// The field, such as `listeners[0].address`.
    pub path: String,
    /// What is wrong and what to write.
    pub reason: String,
}

impl PlanError {
    pub(super) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        PlanError { path: path.into(), reason: reason.into() }
    }
}
