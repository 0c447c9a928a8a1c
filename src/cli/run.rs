//! `outrigger run`: the proxy itself, which `app` puts together.

use crate::app::config::RunArgs;
use crate::app::error::CliError;
use crate::app::load::load;
use crate::app::run::until_signalled;

/// Runs the proxy until it is told to end.
pub(super) fn run(args: &RunArgs) -> Result<(), CliError> {
    until_signalled(load(args)?.plan()?)
}
