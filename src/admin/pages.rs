//! The pages that only read: health, metrics, statistics and what is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use outrigger_telemetry::Outcome;
use serde_json::json;

use crate::admin::error::ApiError;
use crate::admin::ready::Ready;
use crate::admin::reply::{json, text, with_type};
use crate::admin::state::Admin;
use crate::admin::{guard, redis, xds};

pub(super) async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n")
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    match admin.ready.get() {
        Ready::Yes => text(StatusCode::OK, "ready\n"),
        Ready::Warming => text(StatusCode::SERVICE_UNAVAILABLE, "warming\n"),
        Ready::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, ApiError> {
    let mut out = String::new();
    prometheus_client::encoding::text::encode(&mut out, &admin.registry)?;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(with_type(StatusCode::OK, media_type, out.into()))
}

pub(super) async fn config_dump(State(admin): State<Arc<Admin>>) -> Response {
    let status = admin.controller.status();
    let active = admin.shared.active();
    let since = status.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let refused = status.refused.map(|found| {
        json!({
            "source": found.source,
            "line": found.place.position.map(|at| at.line),
            "path": found.place.path,
            "reason": found.to_string(),
        })
    });
    let routes: Vec<&str> = active.snapshot.routes().iter().map(|route| &*route.name).collect();
    json(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "bootstrap": admin.bootstrap,
            "policy": {
                "version": status.version,
                "sources": status.sources,
                "sinceUnixSeconds": since,
                "routes": routes,
                "refused": refused,
                "istiod": xds::state(admin.xds.as_deref()),
            },
        }),
    )
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Response {
    let shared = &admin.shared;
    let active = shared.active();
    let mut routes = BTreeMap::new();
    let (mut total, mut spared) = (0, 0);
    for route in active.snapshot.routes() {
        let metrics = active.metrics(route);
        let mut outcomes = BTreeMap::new();
        for outcome in Outcome::ALL {
            let count = metrics.requests(outcome);
            if count > 0 {
                outcomes.insert(outcome.as_str(), count);
            }
            total += count;
            spared += if outcome.spared_upstream() { count } else { 0 };
        }
        routes.insert(
            route.name.to_string(),
            json!({"outcomes": outcomes, "storedResponseBytes": metrics.stored_bytes.get()}),
        );
    }
    let memory = shared.memory();
    let ratio = if total == 0 { 0.0 } else { spared as f64 / total as f64 };
    json(
        StatusCode::OK,
        &json!({
            "uptimeSeconds": admin.began.elapsed().as_secs(),
            "ready": admin.ready.get() == Ready::Yes,
            "requests": total,
            "sparedUpstream": spared,
            "sparedUpstreamRatio": ratio,
            "routes": routes,
            "memory": {
                "bytes": memory.bytes(),
                "bytesMax": memory.bytes_max(),
                "keys": memory.keys(),
                "evictions": memory.counts().evicted.load(Ordering::Relaxed),
            },
            "fetches": shared.fetches(),
            "redis": redis::tier(admin.tier.as_deref()),
            "purgeLog": redis::log(&admin).await,
            "upstream": guard::state(&admin),
            "policy": active.snapshot.version(),
        }),
    )
}
