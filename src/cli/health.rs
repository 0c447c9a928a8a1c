//! `outrigger health`: what probes run in a container, which has no other program to ask with.

use crate::cli::admin_client::ask;
use crate::cli::{CliError, HealthArgs};

/// Asks whether the process lives, or wants traffic.
pub(super) fn health(args: &HealthArgs) -> Result<(), CliError> {
    let target = if args.ready { "/readyz" } else { "/healthz" };
    let (status, answer) = ask(&args.admin, target, None)?;
    let answer = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
    if status.is_success() {
        println!("{answer}");
        return Ok(());
    }
    Err(CliError::Startup(format!("{target} says {}: {answer}", status.as_u16())))
}
