//! The command line: one file per command, with its arguments. Names and exit codes are a contract.
//!
//! A command either runs something of [`crate::app`], or asks a running process through its admin
//! port as any client would (`admin_client`); none of them uses [`crate::admin`].

mod admin_client;
mod arrival;
mod breaker;
mod cache;
mod check;
mod demo;
mod explain;
mod health;
mod inject;
mod inject_webhook;
mod istio;
mod purge;
mod run;
mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::config::RunArgs;
use crate::app::error::CliError;

/// Wrong usage or configuration.
pub const EXIT_USAGE: u8 = 64;
/// The process could not start, or one that runs could not be reached.
pub const EXIT_STARTUP: u8 = 1;
/// A purge was not acknowledged by all.
pub const EXIT_INCOMPLETE: u8 = 3;

fn exit_code(error: &CliError) -> ExitCode {
    ExitCode::from(match error {
        CliError::Usage(_) => EXIT_USAGE,
        CliError::Startup(_) => EXIT_STARTUP,
        CliError::Incomplete(_) => EXIT_INCOMPLETE,
    })
}

#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    about = "An HTTP cache that runs beside a service",
    long_about = "An HTTP cache that runs beside a service in an Envoy or Istio mesh. \
                  Try `outrigger demo`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Run(RunArgs),
    /// Run an embedded upstream and a cache before it, and print what to try.
    Demo(demo::DemoArgs),
    /// Check bootstrap and policy files, and policies in EnvoyFilters.
    Check(check::CheckArgs),
    /// Explain what would happen to a request, and to its response.
    Explain(explain::ExplainArgs),
    /// Purge stored responses through the admin port of a running process.
    Purge(purge::PurgeArgs),
    /// See the circuit breakers of a running process, or force them open or closed.
    Breaker(breaker::BreakerArgs),
    /// See what a running process has stored.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Print Istio's objects for a workload.
    #[command(subcommand)]
    Istio(istio::IstioCommand),
    /// Ask a running process whether it lives, or wants traffic: for exec probes.
    Health(health::HealthArgs),
    /// Print the JSON Schema of a kind of file.
    Schema(schema::SchemaArgs),
    /// Put Outrigger into the workloads of a YAML stream.
    Inject(inject::InjectArgs),
    /// Run the admission webhook that puts Outrigger into pods.
    InjectWebhook(inject_webhook::WebhookArgs),
    /// Print the version.
    Version,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors.
            let wrong = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if wrong { EXIT_USAGE } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Purge(args) => purge::purge(&args),
        Command::Breaker(args) => breaker::breaker(&args),
        Command::Cache(command) => cache::cache(&command),
        Command::Istio(command) => istio::istio(&command),
        Command::Health(args) => health::health(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Inject(args) => inject::inject(&args),
        Command::InjectWebhook(args) => inject_webhook::inject_webhook(args),
        Command::Version => {
            println!("outrigger {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger: {error}");
            exit_code(&error)
        }
    }
}
