//! `GET /guard` and `POST /breaker`: what the guard of the upstream does, and an operator's say in
//! it.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use outrigger_guard::Force;
use outrigger_proxy::{BreakerState, GuardInspection, LimiterState};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::body::{read_json, refused};
use crate::admin::{Admin, Page, json};

/// What an operator wants of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// Nothing is sent to the upstream.
    Open,
    /// Everything is.
    Closed,
    /// It judges for itself.
    Auto,
}

/// What an operator sends: which breaker, all if it is not said, and what is wanted of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerBody {
    name: Option<String>,
    state: Wanted,
}

pub(super) fn page(admin: &Admin) -> Page {
    json(StatusCode::OK, &state(admin))
}

/// The state of all that guards the upstream.
pub(super) fn state(admin: &Admin) -> Value {
    let guard = admin.shared.guard_state();
    let endpoints: Vec<Value> = admin
        .shared
        .endpoint_states()
        .into_iter()
        .map(|endpoint| {
            json!({
                "address": endpoint.address,
                "healthy": endpoint.healthy,
                "ejected": endpoint.ejected,
                "ejectedMsLeft": endpoint.ejected_ms_left,
            })
        })
        .collect();
    json!({
        "breakers": guard.breakers.iter().map(breaker).collect::<Vec<_>>(),
        "concurrency": guard.limiters.iter().map(limiter).collect::<Vec<_>>(),
        "misses": guard.misses,
        "refreshes": guard.refreshes,
        "backingOffKeys": guard.backing_off,
        "endpoints": endpoints,
    })
}

fn breaker(breaker: &BreakerState) -> Value {
    let status = &breaker.status;
    json!({
        "name": breaker.name,
        "state": status.state.as_str(),
        "reason": status.reason.map(outrigger_guard::Reason::as_str),
        "forced": status.forced.is_some(),
        "requests": status.requests,
        "failed": status.failed,
        "slow": status.slow,
        "openMsLeft": u64::try_from(status.open_left.as_millis()).unwrap_or(u64::MAX),
    })
}

fn limiter(limiter: &LimiterState) -> Value {
    let status = &limiter.status;
    json!({
        "name": limiter.name,
        "limit": status.limit,
        "inFlight": status.in_flight,
        "queued": status.queued,
    })
}

/// The guard's part of an explanation.
pub(super) fn inspection(guard: &GuardInspection) -> Value {
    json!({
        "breaker": guard.breaker,
        "state": guard.state,
        "reason": guard.reason,
        "refusal": guard.refusal,
        "failedValidations": guard.failures,
        "backOffMs": guard.back_off_ms,
    })
}

pub(super) async fn post(admin: &Admin, request: Request<Incoming>) -> Page {
    let body: BreakerBody = match read_json(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let force = match body.state {
        Wanted::Open => Some(Force::Open),
        Wanted::Closed => Some(Force::Closed),
        Wanted::Auto => None,
    };
    if admin.shared.force_breakers(body.name.as_deref(), force) > 0 {
        return page(admin);
    }
    let known: Vec<String> =
        admin.shared.guard_state().breakers.into_iter().map(|breaker| breaker.name).collect();
    let reason = match body.name {
        _ if known.is_empty() => "the policy in force has no circuit breaker".to_owned(),
        Some(name) => {
            format!("no circuit breaker is named \"{name}\"; there is {}", known.join(", "))
        }
        None => "the policy in force has changed; ask again".to_owned(),
    };
    refused(StatusCode::NOT_FOUND, &reason)
}
