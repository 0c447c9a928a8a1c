//! `outrigger schema`.

use schemars::schema_for;

use crate::app::config::Config;
use crate::cli::{CliError, SchemaKind};

/// Prints a JSON Schema.
pub(super) fn schema(kind: SchemaKind) -> Result<(), CliError> {
    let schema = match kind {
        SchemaKind::Policy => schema_for!(outrigger_policy::Document),
        SchemaKind::Config => schema_for!(Config),
    };
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| CliError::Startup(format!("cannot print the schema: {error}")))?;
    println!("{text}");
    Ok(())
}
