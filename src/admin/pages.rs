//! The pages that only tell.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use outrigger_policy::RequestTarget;
use outrigger_proxy::{Live, explain_live};
use outrigger_telemetry::Outcome;
use serde_json::json;

use crate::admin::{Admin, Page, guard, json, page, redis, text};
use crate::app::ready::Ready;

pub(super) fn index() -> Page {
    text(
        StatusCode::OK,
        "outrigger admin\n\n\
         GET  /healthz      whether the process lives\n\
         GET  /readyz       whether it wants traffic\n\
         GET  /stats        what it does, JSON\n\
         GET  /metrics      the same for Prometheus\n\
         GET  /explain?url=http://host/path[&method=GET][&header=Name:value]\n\
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
    let refused = status.refused.map(|error| {
        json!({
            "source": error.source,
            "line": error.at.map(|at| at.0),
            "path": error.path,
            "reason": error.to_string(),
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

pub(super) async fn explain(admin: &Admin, query: &str) -> Page {
    match explanation(admin, query).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

async fn explanation(admin: &Admin, query: &str) -> Result<serde_json::Value, String> {
    let mut url = None;
    let mut method = Method::GET;
    let mut headers = HeaderMap::new();
    // The URL may come as it is; then what follows in it is part of it.
    if let Some(raw) =
        query.strip_prefix("url=").filter(|raw| raw.starts_with("http") && raw.contains("://"))
    {
        url = Some(raw.to_owned());
    } else {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value).ok_or_else(|| format!("{name}: bad encoding"))?;
            match name {
                "url" => url = Some(value),
                "method" => {
                    method = value.parse().map_err(|_| format!("\"{value}\" is not a method"))?;
                }
                "header" => {
                    let (name, value) = value.split_once(':').ok_or("header wants Name:value")?;
                    headers.append(
                        HeaderName::from_bytes(name.trim().as_bytes())
                            .map_err(|e| e.to_string())?,
                        HeaderValue::from_str(value.trim()).map_err(|e| e.to_string())?,
                    );
                }
                other => return Err(format!("\"{other}\" is not url, method or header")),
            }
        }
    }
    let url = url.ok_or("say which: /explain?url=http://host/path")?;
    let uri: Uri = url.parse().map_err(|_| format!("\"{url}\" is not a URL"))?;
    let authority = uri.authority().ok_or("the URL has no host")?;
    let target = RequestTarget {
        scheme: "http",
        authority: authority.as_str(),
        path: if uri.path().is_empty() { "/" } else { uri.path() },
        query: uri.query(),
    };
    let found = explain_live(&admin.shared, &method, target, &headers).await;
    let tiers: Vec<_> = found.tiers.iter().map(live_json).collect();
    Ok(json!({
        "policy": found.policy,
        "stored": tiers.first(),
        "tiers": tiers,
        "rememberedUncacheable": found.remembered_uncacheable,
        "upstream": guard::inspection(&found.guard),
    }))
}

fn live_json(live: &Live) -> serde_json::Value {
    json!({
        "tier": live.tier,
        "state": live.state,
        "status": live.status,
        "ageSeconds": live.age_seconds,
        "ttlSeconds": live.ttl_seconds,
        "bodyBytes": live.body_bytes,
        "bornSeq": live.born_seq,
        "tags": live.tags,
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let digit = |b: u8| (b as char).to_digit(16);
                out.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(percent_decoded("a%20b+c").as_deref(), Some("a b c"));
        assert_eq!(percent_decoded("%zz"), None);
        assert_eq!(percent_decoded("%e"), None);
        assert_eq!(percent_decoded("%ff"), None);
    }
}
