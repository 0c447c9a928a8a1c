//! `outrigger health`: a liveness or readiness check for exec probes, since the image has no other
//! HTTP client.

use crate::app::error::CliError;
use crate::cli::admin_client::{DEFAULT_ADMIN, ask};

/// `outrigger health`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// Admin address of the running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Ask whether it wants traffic, not whether it lives.
    #[arg(long)]
    ready: bool,
}

/// Asks for liveness or readiness.
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
