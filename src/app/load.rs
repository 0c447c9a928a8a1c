//! Reading the bootstrap file and putting the flags over it. The text is kept until the document has
//! become a plan, so that what is refused later can still be placed in a line.

use outrigger_diagnostic::Diagnostic;
use outrigger_policy::yaml::{locate, parse_yaml};

use crate::app::build::{self, ProcessPlan};
use crate::app::config::{Config, RunArgs};
use crate::app::error::CliError;

/// A bootstrap document with the text it came from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The document, flags included.
    pub config: Config,
    /// Name and text of the file, if there is one.
    file: Option<(String, String)>,
}

impl Loaded {
    /// Reads a document from text.
    ///
    /// # Errors
    /// When the text cannot be understood.
    pub fn from_text(source: &str, text: String) -> Result<Self, Diagnostic> {
        let config = parse_yaml(source, &text)?;
        Ok(Loaded { config, file: Some((source.to_owned(), text)) })
    }

    /// Turns the document into a plan.
    ///
    /// # Errors
    /// With file and line where the value stands in the file, else with the field alone: a flag may
    /// have set it.
    pub fn plan(self) -> Result<ProcessPlan, Diagnostic> {
        let Loaded { config, file } = self;
        build::plan(config).map_err(|found| {
            let Some((source, text)) = file else { return found };
            match locate(&text, &found.place.path) {
                Some(position) => found.in_source(source).on(Some(position)),
                None => found,
            }
        })
    }
}

/// Reads the bootstrap file, if one is named, and puts the flags over it.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn load(args: &RunArgs) -> Result<Loaded, CliError> {
    let mut loaded = match &args.config {
        None => Loaded::default(),
        Some(path) => {
            let source = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::Usage(format!("{source}: cannot read the bootstrap file: {error}"))
            })?;
            Loaded::from_text(&source, text)?
        }
    };
    args.apply(&mut loaded.config);
    Ok(loaded)
}
