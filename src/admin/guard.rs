//! `GET /guard` and `POST /breaker`: the state of what guards the upstream, and circuit breakers
//! that an operator forces open or closed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use outrigger_guard::Force;
use outrigger_proxy::{BreakerState, GuardInspection, LimiterState};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::body::JsonBody;
use crate::admin::error::ApiError;
use crate::admin::reply;
use crate::admin::state::Admin;

/// The state that an operator wants for a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WantedState {
    /// Nothing is sent to the upstream.
    Open,
    /// Everything is sent to the upstream.
    Closed,
    /// The breaker decides by the results of requests.
    Auto,
}

/// The body of a request: a circuit breaker, or all of them, and the state that it is to have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerBody {
    name: Option<String>,
    state: WantedState,
}

pub(super) async fn page(State(admin): State<Arc<Admin>>) -> Response {
    reply::json(StatusCode::OK, &state(&admin))
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

pub(super) async fn post(
    State(admin): State<Arc<Admin>>,
    JsonBody(body): JsonBody<BreakerBody>,
) -> Result<Response, ApiError> {
    let force = match body.state {
        WantedState::Open => Some(Force::Open),
        WantedState::Closed => Some(Force::Closed),
        WantedState::Auto => None,
    };
    if admin.shared.force_breakers(body.name.as_deref(), force) > 0 {
        return Ok(reply::json(StatusCode::OK, &state(&admin)));
    }
    let breakers = admin.shared.guard_state().breakers;
    let known: Vec<String> = breakers.into_iter().map(|breaker| breaker.name).collect();
    Err(match body.name {
        _ if known.is_empty() => ApiError::NoBreaker,
        Some(name) => ApiError::UnknownBreaker { name, known },
        None => ApiError::PolicyChanged,
    })
}
