//! The guard: what reaches a failing upstream, and what clients get instead.

mod breaker;
mod deadlines;
mod early;
mod endpoints;
mod limits;
mod retries;
mod stale;

use serde_json::Value;

use crate::support::{Origin, Proxy, Setup};

/// A proxy whose policy has this guard for all routes.
async fn guarded(origin: &Origin, guard: &str) -> Proxy {
    Setup::of(origin).policy(&format!("guard: {guard}\n")).start().await
}

/// What `/guard` says.
async fn state(proxy: &Proxy) -> Value {
    serde_json::from_slice(&proxy.admin("/guard").await.body).expect("JSON from /guard")
}

/// The state of the first breaker.
async fn breaker_state(proxy: &Proxy) -> String {
    state(proxy).await["breakers"][0]["state"].as_str().unwrap_or_default().to_owned()
}

/// The value of a metric with exactly these labels.
async fn metric(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.admin("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}
