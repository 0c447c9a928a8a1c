//! `outrigger schema`: JSON Schemas of the files that operators write, for editors and checks.

use schemars::schema_for;

use crate::app::config::Config;
use crate::app::error::CliError;

/// `outrigger schema`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// Which kind.
    kind: SchemaKind,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SchemaKind {
    /// Policy files.
    Policy,
    /// Bootstrap files.
    Config,
}

/// Prints a JSON Schema.
pub(super) fn schema(args: &SchemaArgs) -> Result<(), CliError> {
    let schema = match args.kind {
        SchemaKind::Policy => schema_for!(outrigger_policy::Document),
        SchemaKind::Config => schema_for!(Config),
    };
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| CliError::Startup(format!("cannot print the schema: {error}")))?;
    println!("{text}");
    Ok(())
}
