//! `outrigger purge`: purges through the admin port, and says which pods have confirmed it.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::error::CliError;
use crate::cli::admin_client::{DEFAULT_ADMIN, ask};

/// `outrigger purge`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PurgeArgs {
    /// Admin address of a running process.
    #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    what: PurgeWhat,
    /// Make responses stale instead of voiding them.
    #[arg(long)]
    soft: bool,
    /// What to wait for.
    #[arg(long, value_enum, default_value = "appended")]
    wait: WaitFor,
    /// How long to wait for acknowledgements.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    timeout: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which stored responses: exactly one of these.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PurgeWhat {
    /// Those of a URL, in every variant.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Those that carry a tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Those whose URL begins so.
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// What a purge waits for.
#[derive(Clone, Copy, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum WaitFor {
    /// Nothing.
    None,
    /// Its place in the purge log.
    Appended,
    /// All live pods.
    All,
}

/// Purges through the admin port of a running process.
pub(super) fn purge(args: &PurgeArgs) -> Result<(), CliError> {
    let what = &args.what;
    let mut body = json!({
        "mode": if args.soft { "soft" } else { "hard" },
        "wait": args.wait,
        "timeout": args.timeout,
    });
    let matchers = [("url", &what.url), ("tag", &what.tag), ("prefix", &what.prefix)];
    for (name, value) in matchers {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    if what.all {
        body["all"] = true.into();
    }
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let (status, answer) = ask(&args.admin, "/purge", Some(&body))?;
    if args.json {
        println!("{answer}");
    }
    if !status.is_success() {
        let reason = answer["error"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
        return Err(CliError::Usage(reason));
    }
    if answer["queued"] == true {
        return Err(CliError::Incomplete(
            "purged in that pod; queued for the others, since the purge log cannot be reached"
                .to_owned(),
        ));
    }
    if !args.json {
        println!("{}", summary(status, &answer));
    }
    let missing = missing(&answer);
    if missing.is_empty() && answer["complete"] == false {
        return Err(CliError::Incomplete(
            "the list of live pods is younger than a lease: some may not be on it yet; say \
             --timeout 5s, or repeat this"
                .to_owned(),
        ));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::Incomplete(format!("not acknowledged by {}", missing.join(", "))))
}

/// Names of live pods that have not confirmed a purge.
fn missing(answer: &Value) -> Vec<String> {
    let names = answer["missing"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// One line about a purge that is done, from the JSON of the admin port.
fn summary(status: StatusCode, answer: &Value) -> String {
    if status == StatusCode::ACCEPTED {
        return "accepted".to_owned();
    }
    let seq = &answer["seq"];
    let by = match (answer["applied"].as_u64(), answer["live"].as_u64()) {
        (Some(applied), Some(live)) => format!("applied by {applied} of {live} live pods"),
        _ => "applied in this pod".to_owned(),
    };
    let least = if answer["matchedHerePartial"] == true { "at least " } else { "" };
    match answer["matchedHere"].as_u64() {
        Some(matched) => format!(
            "purged: event {seq}, {by}; it met {least}{matched} stored responses in this pod"
        ),
        None => format!("purged: event {seq}, {by}"),
    }
}
