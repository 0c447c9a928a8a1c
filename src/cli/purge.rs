//! `outrigger purge`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::cli::admin_client::ask;
use crate::cli::{CliError, PurgeArgs};

/// Purges through the admin port of a running process.
pub(super) fn purge(args: &PurgeArgs) -> Result<(), CliError> {
    let what = &args.what;
    let mut body = json!({
        "mode": if args.soft { "soft" } else { "hard" },
        "wait": args.wait.as_str(),
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
        println!("{}", told(status, &answer));
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

fn missing(answer: &Value) -> Vec<String> {
    let names = answer["missing"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn told(status: StatusCode, answer: &Value) -> String {
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
