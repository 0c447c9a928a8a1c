//! `outrigger explain`: what the proxy would decide about a request by a policy file. It uses the code
//! of the proxy and needs no running process.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_policy::explain::{Question, explain as decide};
use outrigger_policy::{Snapshot, Url};
use outrigger_semantics::UnixMillis;

use crate::app::error::CliError;
use crate::cli::arrival::ArrivalArgs;

/// `outrigger explain`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Method.
    method: String,
    /// URL, with scheme and host.
    url: String,
    /// Request header; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Status of the response [default: 200 if a response header is given].
    #[arg(long, value_name = "N")]
    status: Option<u16>,
    /// Response header; may be repeated.
    #[arg(long = "response-header", value_name = "NAME: VALUE")]
    response_headers: Vec<String>,
    #[command(flatten)]
    arrival: ArrivalArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints what would happen to a request, and to its response where one is given.
pub(super) fn explain(args: &ExplainArgs) -> Result<(), CliError> {
    let source = args.policy.display().to_string();
    let text = std::fs::read_to_string(&args.policy)
        .map_err(|error| CliError::Usage(format!("{source}: cannot read the file: {error}")))?;
    let snapshot = Snapshot::from_yaml(&source, &text)?;
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| CliError::Usage(format!("\"{}\" is not a method", args.method)))?;
    let headers = parse_headers(&args.headers)?;
    let response_headers = parse_headers(&args.response_headers)?;
    let status = response_status(args)?;
    let url = Url::parse(&args.url).map_err(|_| not_a_url(&args.url))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let question = Question {
        method: &method,
        url: &url,
        headers: &headers,
        arrival: args.arrival.arrival(url.written_port())?,
        response: status.map(|status| (status, &response_headers)),
        now: UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
    };
    let explanation = decide(&snapshot, &question);
    if args.json {
        let text = serde_json::to_string_pretty(&explanation)
            .map_err(|error| CliError::Startup(format!("cannot print JSON: {error}")))?;
        println!("{text}");
    } else {
        print!("{explanation}");
    }
    Ok(())
}

fn not_a_url(text: &str) -> CliError {
    CliError::Usage(format!("\"{text}\" is not a URL: write scheme and host, http://shop.svc/a"))
}

fn response_status(args: &ExplainArgs) -> Result<Option<StatusCode>, CliError> {
    let code = match args.status {
        Some(code) => code,
        None if args.response_headers.is_empty() => return Ok(None),
        None => 200,
    };
    StatusCode::from_u16(code)
        .map(Some)
        .map_err(|_| CliError::Usage(format!("{code} is not a status")))
}

fn parse_headers(lines: &[String]) -> Result<HeaderMap, CliError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let bad = || CliError::Usage(format!("\"{line}\" is not a header: write 'Name: value'"));
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| bad())?;
        headers.append(name, value);
    }
    Ok(headers)
}
