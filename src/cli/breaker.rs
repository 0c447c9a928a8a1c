//! `outrigger breaker`: shows the circuit breakers of a running process, and forces their state.

use serde::Serialize;
use serde_json::{Value, json};

use crate::app::error::CliError;
use crate::cli::admin_client::{DEFAULT_ADMIN, ask};

/// `outrigger breaker`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BreakerArgs {
    /// Admin address of a running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// Force this state on it; without, its state is printed.
    #[arg(value_enum)]
    state: Option<BreakerWanted>,
    /// Which one: upstream, inbound:PORT, HOST:PORT of a service, or route:NAME. Without, all.
    #[arg(long, value_name = "NAME", requires = "state")]
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is wanted of a circuit breaker.
#[derive(Clone, Copy, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum BreakerWanted {
    /// Nothing is sent to the upstream.
    Open,
    /// Everything is sent.
    Closed,
    /// It judges for itself again.
    Auto,
}

/// Shows the circuit breakers of a running process, or forces a state on them.
pub(super) fn breaker(args: &BreakerArgs) -> Result<(), CliError> {
    let wanted = args.state.map(|state| {
        let mut body = json!({"state": state});
        if let Some(name) = &args.name {
            body["name"] = name.as_str().into();
        }
        body
    });
    let target = if wanted.is_some() { "/breaker" } else { "/guard" };
    let (status, answer) = ask(&args.admin, target, wanted.as_ref())?;
    if args.json {
        println!("{answer}");
    }
    if !status.is_success() {
        let reason = answer["error"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
        return Err(CliError::Usage(reason));
    }
    if !args.json {
        answer["breakers"].as_array().into_iter().flatten().for_each(|breaker| {
            println!("{}", summary(breaker));
        });
    }
    Ok(())
}

/// One line about a breaker, from the JSON of the admin port.
fn summary(breaker: &Value) -> String {
    let word = |name: &str| breaker[name].as_str().unwrap_or("none").to_owned();
    let (name, state) = (word("name"), word("state"));
    if breaker["forced"] == true {
        return format!("{name}: {state}, forced");
    }
    let counts = format!("{} of {} requests failed lately", breaker["failed"], breaker["requests"]);
    match state.as_str() {
        "closed" => format!("{name}: closed, {counts}"),
        "open" => {
            format!("{name}: open ({}), probes in {} ms", word("reason"), breaker["openMsLeft"])
        }
        _ => format!("{name}: {state} ({})", word("reason")),
    }
}
