//! The tier in Redis and the purge log, for `/stats`.

use outrigger_store::redis::{LookupResult, RedisTier, WriteResult};
use serde_json::{Map, Value, json};

use crate::admin::purge::event_json;
use crate::admin::state::Admin;

/// The tier, or `null` where there is none.
pub(super) fn tier(tier: Option<&RedisTier>) -> Value {
    let Some(tier) = tier else { return Value::Null };
    let counts = tier.counts();
    let mut lookups = Map::new();
    for &result in LookupResult::ALL {
        lookups.insert(result.as_str().to_owned(), counts.lookups(result).into());
    }
    let mut writes = Map::new();
    for &result in WriteResult::ALL {
        writes.insert(result.as_str().to_owned(), counts.writes(result).into());
    }
    let servers: Vec<Value> = tier
        .servers()
        .into_iter()
        .map(|(address, up, reason)| {
            json!({"address": address, "up": up, "reason": if up { Value::Null } else { reason.into() }})
        })
        .collect();
    json!({
        "up": tier.is_up(),
        "servers": servers,
        "namespace": tier.names().namespace(),
        "workload": tier.names().workload(),
        "lookups": lookups,
        "writes": writes,
        "queueBytes": tier.queue_bytes(),
        "quota": tier.quota().map(|(used, max)| json!({"bytes": used, "bytesMax": max})),
    })
}

/// The purge log: of this pod, or of the namespace where it is in Redis.
pub(super) async fn log(admin: &Admin) -> Value {
    let log = admin.shared.log();
    let recent: Vec<Value> = log.recent().iter().rev().take(20).map(event_json).collect();
    let mut value = json!({
        "scope": log.scope(),
        "applied": log.applied(),
        "matchers": log.mirror().matchers(),
        "holds": log.mirror().holds(),
        "gaps": log.gaps(),
        "recent": recent,
    });
    if let Some(shared) = log.as_redis() {
        let pods = shared.pods().await.unwrap_or_default();
        let pods: Vec<Value> = pods
            .into_iter()
            .map(|(pod, applied)| json!({"pod": pod, "applied": applied}))
            .collect();
        value["connected"] = shared.is_connected().into();
        value["pod"] = shared.pod().into();
        value["mayMissHolds"] = log.may_miss_holds().into();
        value["lease"] = shared.has_lease().into();
        value["queued"] = shared.queued().into();
        value["pods"] = pods.into();
    }
    value
}
