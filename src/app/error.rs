//! Why a command fails. The type sits below everything else of the composition, so that each part can
//! return it. What is wrong in a document is a [`Diagnostic`]; exit codes are the command line's.

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
