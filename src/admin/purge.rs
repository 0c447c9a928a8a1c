//! `POST /purge` and `GET /purges`.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use outrigger_coherence::{Action, Event, Matcher, Mode, Purged};
use outrigger_policy::values::Span;
use outrigger_proxy::{PurgeCommand, purge};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::body::{read_json, refused};
use crate::admin::{Admin, Page, json};

/// How long acknowledgements are waited for when nothing is said, and at most.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a purge waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wait {
    /// Nothing: the answer comes at once.
    None,
    /// Its place in the log, and this pod.
    #[default]
    Appended,
    /// All live pods.
    All,
}

/// What an operator sends: one of the matchers, a mode, and what to wait for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeBody {
    url: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    all: Option<bool>,
    mode: Mode,
    wait: Wait,
    timeout: Option<Span>,
    reason: Option<String>,
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
            (Some(matcher), true) => {
                Ok(PurgeCommand { matcher, mode: self.mode, reason: self.reason })
            }
            _ => {
                Err("say exactly one of \"url\", \"tag\", \"prefix\" and \"all\": true".to_owned())
            }
        }
    }
}

pub(super) async fn post(admin: &Admin, request: Request<Incoming>) -> Page {
    let body: PurgeBody = match read_json(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let wait = body.wait;
    let limit = body.timeout.map_or(WAIT_DEFAULT, |span| Duration::from_millis(span.0));
    match body.command() {
        Ok(command) => carry_out(admin, command, wait, limit.min(WAIT_MAX)).await,
        Err(reason) => refused(StatusCode::BAD_REQUEST, &reason),
    }
}

async fn carry_out(admin: &Admin, command: PurgeCommand, wait: Wait, limit: Duration) -> Page {
    if wait == Wait::None {
        // Mistakes are told all the same.
        if let Err(error) = outrigger_proxy::check_purge(&admin.shared, &command) {
            return refused(StatusCode::BAD_REQUEST, &error.to_string());
        }
        let shared = std::sync::Arc::clone(&admin.shared);
        tokio::spawn(async move { purge(&shared, command).await });
        let scope = admin.shared.log().scope();
        return json(StatusCode::ACCEPTED, &json!({"seq": null, "scope": scope}));
    }
    let event = match purge(&admin.shared, command).await {
        Ok(Purged::Applied(event)) => event,
        Ok(Purged::Queued) => {
            tracing::warn!("purged in this pod; the purge log cannot be reached");
            let note = "the purge log cannot be reached: in effect in this pod, and appended when \
                        the log is back";
            let scope = admin.shared.log().scope();
            let answer = json!({"seq": null, "scope": scope, "queued": true, "note": note});
            return json(StatusCode::ACCEPTED, &answer);
        }
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let log = admin.shared.log();
    let mode = event.content.action.as_str();
    tracing::info!(seq = event.seq, matcher = ?event.content.matcher, mode, "purged");
    let mut answer = json!({"seq": event.seq, "scope": log.scope()});
    if wait == Wait::All || log.scope() == outrigger_coherence::LogScope::Pod {
        let acks = log.acknowledged(event.seq, limit).await;
        answer["applied"] = acks.applied.into();
        answer["live"] = acks.live.into();
        answer["missing"] = acks.missing.into();
        answer["complete"] = acks.complete.into();
    }
    json(StatusCode::OK, &answer)
}

/// The latest events, newest first: what was purged, by whom, why and when.
pub(super) fn list(admin: &Admin) -> Page {
    let recent: Vec<Value> = admin.shared.log().recent().iter().rev().map(event_json).collect();
    json(StatusCode::OK, &json!({"purges": recent}))
}

/// An event as operators see it.
pub(super) fn event_json(event: &Event) -> Value {
    let content = &event.content;
    let ends = match content.action {
        Action::Purge { ends, .. } => ends,
        _ => None,
    };
    json!({
        "seq": event.seq,
        "atUnixMillis": event.at_unix_millis,
        "matcher": content.matcher,
        "mode": content.action.as_str(),
        "by": content.by,
        "pod": content.pod,
        "reason": content.reason,
        "endsHold": ends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_matcher_is_taken() {
        let command = |text: &str| serde_json::from_str::<PurgeBody>(text).unwrap().command();
        assert_eq!(
            command("{\"tag\": \"a\", \"mode\": \"soft\", \"reason\": \"r\"}"),
            Ok(PurgeCommand {
                matcher: Matcher::Tag("a".into()),
                mode: Mode::Soft,
                reason: Some("r".to_owned())
            })
        );
        assert!(command("{}").is_err());
        assert!(command("{\"all\": false}").is_err());
        assert!(command("{\"tag\": \"a\", \"url\": \"b\"}").is_err());
        assert!(serde_json::from_str::<PurgeBody>("{\"all\": true, \"timeout\": \"3\"}").is_err());
    }
}
