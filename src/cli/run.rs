//! `outrigger run`.

use crate::app::{self, config};
use crate::cli::{CliError, RunArgs};

/// Runs the proxy until it is told to end.
pub(super) fn run(args: &RunArgs) -> Result<(), CliError> {
    app::run::until_signalled(config::load(args)?.plan()?)
}
