//! `POST /purge`.

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use outrigger_coherence::{Matcher, Mode};
use outrigger_proxy::{PurgeCommand, PurgeError, purge};
use serde::Deserialize;
use serde_json::json;

use crate::admin::{Admin, Page, json};

/// A larger body is refused.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What an operator sends: one of the matchers, and a mode.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeBody {
    url: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    all: Option<bool>,
    mode: Mode,
}

impl PurgeBody {
    fn command(self) -> Result<PurgeCommand, String> {
        let mut matchers = Vec::new();
        matchers.extend(self.url.map(Matcher::Url));
        matchers.extend(self.tag.map(Matcher::Tag));
        matchers.extend(self.prefix.map(Matcher::Prefix));
        if self.all == Some(true) {
            matchers.push(Matcher::All);
        }
        match (matchers.pop(), matchers.is_empty()) {
            (Some(matcher), true) => Ok(PurgeCommand { matcher, mode: self.mode }),
            _ => {
                Err("say exactly one of \"url\", \"tag\", \"prefix\" and \"all\": true".to_owned())
            }
        }
    }
}

fn refused(status: StatusCode, reason: &str) -> Page {
    json(status, &json!({"error": reason}))
}

pub(super) async fn post(admin: &Admin, request: Request<Incoming>) -> Page {
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON with content-type: application/json",
        );
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off");
    };
    let parsed = serde_json::from_slice::<PurgeBody>(&body.to_bytes())
        .map_err(|error| error.to_string())
        .and_then(PurgeBody::command);
    let command = match parsed {
        Ok(command) => command,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, &reason),
    };
    match purge(&admin.shared, command).await {
        Ok(event) => {
            tracing::info!(seq = event.seq, matcher = ?event.matcher, mode = event.mode.as_str(), "purged");
            let log = admin.shared.log();
            json(
                StatusCode::OK,
                &json!({"seq": event.seq, "applied": log.applied(), "scope": log.scope()}),
            )
        }
        Err(error @ PurgeError::Log(_)) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_matcher_is_taken() {
        let command = |text: &str| serde_json::from_str::<PurgeBody>(text).unwrap().command();
        assert_eq!(
            command("{\"tag\": \"a\", \"mode\": \"soft\"}"),
            Ok(PurgeCommand { matcher: Matcher::Tag("a".into()), mode: Mode::Soft })
        );
        assert!(command("{}").is_err());
        assert!(command("{\"all\": false}").is_err());
        assert!(command("{\"tag\": \"a\", \"url\": \"b\"}").is_err());
    }
}
