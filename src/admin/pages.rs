//! The pages that only tell.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::StatusCode;
use outrigger_telemetry::Outcome;
use serde_json::json;

use crate::admin::{Admin, Page, guard, json, page, redis, text, xds};
use crate::app::ready::Ready;

pub(super) fn index() -> Page {
    text(
        StatusCode::OK,
        "outrigger admin\n\n\
         GET  /healthz      whether the process lives\n\
         GET  /readyz       whether it wants traffic\n\
         GET  /stats        what it does, JSON\n\
         GET  /metrics      the same for Prometheus\n\
         GET  /explain?[method=GET&][header=Name:value&][side=inbound|outbound&]\n\
        \x20                   [port=8080&][peer=spiffe://…&]url=http://host/path (encoded, or last)\n\
         GET  /config_dump  bootstrap and policy in force\n\
         GET  /guard        circuit breakers, limits, endpoints\n\
         POST /breaker      {\"name\": \"upstream\", \"state\": \"open\"|\"closed\"|\"auto\"}; without a name, all\n\
         GET  /purges       the latest purges: what, who, why, when\n\
         POST /purge        {\"url\"|\"tag\"|\"prefix\": \"…\"} or {\"all\": true}, \"mode\": \"hard\"|\"soft\",\n\
        \x20                   \"wait\": \"none\"|\"appended\"|\"all\", \"timeout\": \"2s\", \"reason\": \"…\"\n",
    )
}

pub(super) fn metrics(admin: &Admin) -> Page {
    let mut out = String::new();
    match prometheus_client::encoding::text::encode(&mut out, &admin.registry) {
        Ok(()) => page(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Bytes::from(out),
        ),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

pub(super) fn config_dump(admin: &Admin) -> Page {
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
            "bootstrap": admin.config,
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

pub(super) async fn stats(admin: &Admin) -> Page {
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
            "redis": redis::tier(admin.redis.as_ref()),
            "purgeLog": redis::log(admin).await,
            "upstream": guard::state(admin),
            "policy": active.snapshot.version(),
        }),
    )
}
