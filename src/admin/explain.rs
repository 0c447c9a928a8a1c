//! `GET /explain`: what would happen to a request, and what is stored for it. The command line's
//! `explain` answers by a policy file alone; this page knows the running process.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use outrigger_policy::{Arrival, Peer, Side, Url};
use outrigger_proxy::{Live, NextAnswer, explain_live};
use outrigger_semantics::NotStored;
use serde_json::json;

use crate::admin::error::ApiError;
use crate::admin::explain_query::{ExplainQuery, QueryError};
use crate::admin::purge::add_matched;
use crate::admin::state::Admin;
use crate::admin::{guard, reply};

pub(super) async fn page(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let explanation = explanation(&admin, &query.unwrap_or_default()).await?;
    Ok(reply::json(StatusCode::OK, &explanation))
}

/// The side of the pod that all listeners serve. `None` if there are direct listeners. With both
/// sides it is the inbound one.
fn only_side(listeners: &[Option<Side>]) -> Option<Side> {
    if listeners.contains(&None) {
        return None;
    }
    [Side::Inbound, Side::Outbound].into_iter().find(|side| listeners.contains(&Some(*side)))
}

async fn explanation(admin: &Admin, query: &str) -> Result<serde_json::Value, QueryError> {
    let asked = ExplainQuery::parse(query)?;
    let url = Url::parse(&asked.url)
        .map_err(|reason| QueryError::NotAUrl { url: asked.url.clone(), reason })?;
    let active = admin.shared.active();
    let side = asked.side.or_else(|| only_side(&admin.listeners));
    let entry = side.map(|side| {
        let in_policy = active.snapshot.side(side).ports.as_deref().unwrap_or_default();
        let only = if let [port] = in_policy { Some(port.get()) } else { None };
        (side, asked.port.or(only).or_else(|| url.written_port()).unwrap_or(80))
    });
    let peer = asked.peer.as_deref().and_then(Peer::parse);
    let arrival = Arrival { entry, peer, own: None };
    let found = explain_live(&admin.shared, &asked.method, &url, &asked.headers, arrival).await;
    let tiers: Vec<_> = found.tiers.iter().map(live_json).collect();
    let mut answer = json!({
        "policy": found.policy,
        "stored": tiers.first(),
        "tiers": tiers,
        "next": found.next.iter().map(next_json).collect::<Vec<_>>(),
        "rememberedUncacheable": found.remembered_uncacheable.is_some(),
        "uncacheableSince": found.remembered_uncacheable.map(reason_json),
        "upstream": guard::inspection(&found.guard),
    });
    add_matched(&mut answer, found.matched);
    Ok(answer)
}

fn next_json(next: &NextAnswer) -> serde_json::Value {
    json!({
        "answer": next.answer,
        "for": next.asker,
        "effect": next.effect,
        "rfc": next.rfc,
        "because": next.why,
    })
}

fn reason_json(why: NotStored) -> serde_json::Value {
    json!({"reason": why.as_str(), "because": why.explanation()})
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
        "vary": live.vary,
        "variants": live.variants,
        "departed": live.departed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_assumed_only_without_direct_listeners() {
        let (inbound, outbound) = (Some(Side::Inbound), Some(Side::Outbound));
        assert_eq!(only_side(&[]), None);
        assert_eq!(only_side(&[inbound, None]), None);
        assert_eq!(only_side(&[outbound]), outbound);
        assert_eq!(only_side(&[outbound, inbound]), inbound);
    }
}
