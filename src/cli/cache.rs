//! `outrigger cache`: what a running process has stored.

use form_urlencoded::Serializer;
use serde_json::Value;

use crate::app::error::CliError;
use crate::cli::admin_client::{DEFAULT_ADMIN, ask};
use crate::cli::arrival::ArrivalArgs;

/// `outrigger cache`.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum CacheCommand {
    /// What is stored for a URL, in each tier.
    Get {
        /// Admin address of a running process.
        #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
        admin: String,
        /// Request header, which may select a variant; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        arrival: ArrivalArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// URL, with scheme and host.
        url: String,
    },
    /// How full the tiers are and what they do.
    Stat {
        /// Admin address of a running process.
        #[arg(long, value_name = "ADDR", env = "OUTRIGGER_ADMIN", default_value = DEFAULT_ADMIN)]
        admin: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Prints what the admin port of a running process says about its stored responses.
pub(super) fn cache(command: &CacheCommand) -> Result<(), CliError> {
    match command {
        CacheCommand::Get { admin, headers, arrival, json, url } => {
            let answer = answered(admin, &explain_target(url, headers, arrival))?;
            if *json {
                println!("{answer}");
            } else {
                print!("{}", entry_text(&answer));
            }
        }
        CacheCommand::Stat { admin, json } => {
            let answer = answered(admin, "/stats")?;
            if *json {
                println!("{answer}");
            } else {
                print!("{}", stat_text(&answer));
            }
        }
    }
    Ok(())
}

/// The target at which the admin port explains a GET.
fn explain_target(url: &str, headers: &[String], arrival: &ArrivalArgs) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("method", "GET").append_pair("url", url);
    for header in headers {
        query.append_pair("header", header);
    }
    arrival.add_to(&mut query);
    format!("/explain?{}", query.finish())
}

fn answered(admin: &str, target: &str) -> Result<Value, CliError> {
    let (status, answer) = ask(admin, target, None)?;
    if status.is_success() {
        return Ok(answer);
    }
    Err(CliError::Usage(answer.as_str().map_or_else(|| answer.to_string(), str::to_owned)))
}

/// What is stored for a URL, as lines for people.
fn entry_text(answer: &Value) -> String {
    let policy = &answer["policy"];
    let mut out = format!("route   {}\nkey     {}\n", text(&policy["route"]), text(&policy["key"]));
    for tier in answer["tiers"].as_array().into_iter().flatten() {
        out.push_str(&format!("{:<7} {}", text(&tier["tier"]), text(&tier["state"])));
        if let Some(status) = tier["status"].as_u64() {
            let tags: Vec<&str> =
                tier["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            out.push_str(&format!(
                ": {status}, {} bytes, age {} s, ttl {} s, born at {}",
                tier["bodyBytes"], tier["ageSeconds"], tier["ttlSeconds"], tier["bornSeq"]
            ));
            if !tags.is_empty() {
                out.push_str(&format!(", tags {}", tags.join(" ")));
            }
        }
        out.push('\n');
    }
    let uris: Vec<&str> =
        policy["uris"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let least = if answer["matchedHerePartial"] == true { "at least " } else { "" };
    out.push_str(&format!(
        "a purge of this URL is for {} and meets {least}{} stored responses in this pod\n",
        uris.join(" and "),
        answer["matchedHere"]
    ));
    if answer["rememberedUncacheable"] == true {
        let because =
            answer["uncacheableSince"]["because"].as_str().unwrap_or("no reason is known");
        out.push_str(&format!("the key is not cacheable for the moment: {because}\n"));
    }
    out
}

/// What the tiers hold and do, as lines for people.
fn stat_text(answer: &Value) -> String {
    let memory = &answer["memory"];
    let mut out = format!(
        "requests  {}, upstream spared {:.1} %\nmemory    {} keys, {} of {} bytes\n",
        answer["requests"],
        answer["sparedUpstreamRatio"].as_f64().unwrap_or(0.0) * 100.0,
        memory["keys"],
        memory["bytes"],
        memory["bytesMax"],
    );
    let redis = &answer["redis"];
    if redis.is_null() {
        out.push_str("redis     none\n");
    } else {
        let state = if redis["up"] == true { "up" } else { "down" };
        let counted = |counts: &Value| {
            let pairs = counts.as_object().into_iter().flatten();
            let seen = pairs.filter(|(_, n)| n.as_u64() != Some(0));
            let words: Vec<String> = seen.map(|(name, n)| format!("{name} {n}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        out.push_str(&format!(
            "redis     {state}; lookups: {}; writes: {}\n",
            counted(&redis["lookups"]),
            counted(&redis["writes"]),
        ));
    }
    let log = &answer["purgeLog"];
    out.push_str(&format!("purge log {}, applied {}", text(&log["scope"]), log["applied"]));
    if let Some(pods) = log["pods"].as_array() {
        let state = if log["connected"] == true { "connected" } else { "not connected" };
        out.push_str(&format!(", {state}, {} pods", pods.len()));
    }
    out.push('\n');
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_count_that_is_not_complete_says_so() {
        let mut answer = json!({"policy": {"uris": ["http://a/"]}, "matchedHere": 3});
        let said = |answer: &Value, words: &str| {
            let text = entry_text(answer);
            assert!(text.contains(words), "{text}");
        };
        said(&answer, "is for http://a/ and meets 3 stored responses");
        answer["matchedHerePartial"] = true.into();
        said(&answer, "is for http://a/ and meets at least 3 stored responses");
    }

    #[test]
    fn what_is_asked_for_is_encoded() {
        let headers = ["accept: a+b".to_owned()];
        let target = explain_target("http://a/b?c=d e", &headers, &ArrivalArgs::default());
        let query = "method=GET&url=http%3A%2F%2Fa%2Fb%3Fc%3Dd+e&header=accept%3A+a%2Bb";
        assert_eq!(target, format!("/explain?{query}"));
    }
}
