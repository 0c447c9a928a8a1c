//! `POST /purge` and `GET /purges`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use outrigger_coherence::{Action, Event, LogScope, PurgeMode, Purged};
use outrigger_policy::values::Span;
use outrigger_proxy::{Matched, PurgeCommand, PurgeResult, PurgeTarget, check_purge, purge};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::body::JsonBody;
use crate::admin::error::ApiError;
use crate::admin::reply::json;
use crate::admin::state::Admin;

/// Time to wait for acknowledgements where the request gives none.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// Longest time to wait for acknowledgements; a longer one is cut to it.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

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

/// The body of a request: one matcher, a mode, and what to wait for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PurgeBody {
    url: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    all: Option<bool>,
    mode: PurgeMode,
    wait: Wait,
    timeout: Option<Span>,
    reason: Option<String>,
}

impl PurgeBody {
    fn command(self) -> Result<PurgeCommand, ApiError> {
        let mut targets = Vec::new();
        targets.extend(self.url.map(PurgeTarget::Url));
        targets.extend(self.tag.map(PurgeTarget::Tag));
        targets.extend(self.prefix.map(PurgeTarget::Prefix));
        if self.all == Some(true) {
            targets.push(PurgeTarget::All);
        }
        match (targets.pop(), targets.is_empty()) {
            (Some(target), true) => {
                Ok(PurgeCommand { target, mode: self.mode, reason: self.reason })
            }
            _ => Err(ApiError::NotOneMatcher),
        }
    }
}

pub(super) async fn post(
    State(admin): State<Arc<Admin>>,
    JsonBody(body): JsonBody<PurgeBody>,
) -> Result<Response, ApiError> {
    let wait = body.wait;
    let limit = body.timeout.map_or(WAIT_DEFAULT, |span| Duration::from_millis(span.0));
    let limit = limit.min(WAIT_MAX);
    let command = body.command()?;
    if wait == Wait::None {
        // The client does not wait for the purge, but is told of a mistake in it.
        check_purge(&admin.shared, &command)?;
        let shared = Arc::clone(&admin.shared);
        tokio::spawn(async move { purge(&shared, command).await });
        let scope = admin.shared.log().scope();
        return Ok(json(StatusCode::ACCEPTED, &json!({"seq": null, "scope": scope})));
    }
    let PurgeResult { purged, here } = purge(&admin.shared, command).await?;
    let event = match purged {
        Purged::Applied(event) => event,
        Purged::Queued => {
            tracing::warn!("purged in this pod; the purge log cannot be reached");
            let note = "the purge log cannot be reached: in effect in this pod, and appended when \
                        the log is back";
            let scope = admin.shared.log().scope();
            let mut answer = json!({"seq": null, "scope": scope, "queued": true, "note": note});
            add_matched(&mut answer, here);
            return Ok(json(StatusCode::ACCEPTED, &answer));
        }
    };
    let log = admin.shared.log();
    let mode = event.content.action.as_str();
    tracing::info!(seq = event.seq, matcher = ?event.content.matcher, mode, "purged");
    let mut answer = json!({"seq": event.seq, "scope": log.scope()});
    add_matched(&mut answer, here);
    if wait == Wait::All || log.scope() == LogScope::Pod {
        let acks = log.acknowledged(event.seq, limit).await;
        answer["applied"] = acks.applied.into();
        answer["live"] = acks.live.into();
        answer["missing"] = acks.missing.into();
        answer["complete"] = acks.complete.into();
    }
    Ok(json(StatusCode::OK, &answer))
}

/// How many stored responses a purge has met in this pod, or would meet, so that a typing error is
/// seen.
pub(super) fn add_matched(answer: &mut Value, here: Matched) {
    answer["matchedHere"] = here.responses.into();
    if here.partial {
        answer["matchedHerePartial"] = true.into();
    }
}

/// The latest events, newest first: what was purged, by whom, why and when.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response {
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
    fn a_count_that_is_not_complete_says_so() {
        let told = |responses, partial| {
            let mut answer = json!({});
            add_matched(&mut answer, Matched { responses, partial });
            answer
        };
        assert_eq!(told(3, false), json!({"matchedHere": 3}));
        assert_eq!(told(3, true), json!({"matchedHere": 3, "matchedHerePartial": true}));
    }

    #[test]
    fn exactly_one_matcher_is_taken() {
        let command = |text: &str| serde_json::from_str::<PurgeBody>(text).unwrap().command();
        assert_eq!(
            command("{\"tag\": \"a\", \"mode\": \"soft\", \"reason\": \"r\"}").unwrap(),
            PurgeCommand {
                target: PurgeTarget::Tag("a".into()),
                mode: PurgeMode::Soft,
                reason: Some("r".to_owned())
            }
        );
        for text in ["{}", "{\"all\": false}", "{\"tag\": \"a\", \"url\": \"b\"}"] {
            assert!(matches!(command(text), Err(ApiError::NotOneMatcher)), "{text}");
        }
        assert!(serde_json::from_str::<PurgeBody>("{\"all\": true, \"timeout\": \"3\"}").is_err());
    }
}
