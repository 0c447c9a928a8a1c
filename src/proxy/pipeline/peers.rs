//! The part of the other pods in a fetch: what they have stored meanwhile is used, and where the
//! tier keeps order, one pod fetches for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Method};
use outrigger_coherence::Verdict;
use outrigger_policy::Route;
use outrigger_policy::snapshot::RouteQuery;
use outrigger_store::tier::Usable;
use outrigger_store::{Claim, Entry, Scope, Settled, ShareRules, Ticket, Tier};

use crate::app::Shared;
use crate::pipeline::request::RequestView;

/// What of a route goes to the tiers that pods share.
pub(crate) fn share_rules(route: &Route) -> ShareRules {
    ShareRules {
        enabled: route.redis.enabled,
        scope: scope(route),
        object_bytes_max: route.redis.object_bytes_max,
        ttl_ms_min: route.redis.ttl_ms_min,
    }
}

/// Who shares the responses of a route.
pub(crate) fn scope(route: &Route) -> Scope {
    if route.redis.for_namespace { Scope::Namespace } else { Scope::Workload }
}

/// The right to fetch for all pods; given back when dropped.
pub(crate) struct FetchLock {
    tier: Arc<dyn Tier>,
    ticket: Ticket,
    uncacheable: AtomicBool,
}

impl FetchLock {
    /// The others need not wait for what cannot be shared.
    pub(crate) fn is_uncacheable(&self) {
        self.uncacheable.store(true, Ordering::Relaxed);
    }
}

impl Drop for FetchLock {
    fn drop(&mut self) {
        let uncacheable = self.uncacheable.load(Ordering::Relaxed);
        let how = if uncacheable { Settled::Uncacheable } else { Settled::Done };
        self.tier.settle(self.ticket.clone(), how);
    }
}

/// Which pod fetches.
pub(crate) enum LockOutcome {
    /// This one; with the lock it does so for all.
    Fetch(Option<FetchLock>),
    /// Another one has, and this is its response.
    Fetched(Arc<Entry>),
}

/// Asks for the right to fetch; waits while another pod has it, and takes its response if that is
/// `usable`. Where the response turned out not
/// to be for others, every pod fetches for itself.
pub(crate) async fn lock(request: RequestView<'_>, usable: &Usable<'_>) -> LockOutcome {
    if !request.asks_shared_tiers() {
        return LockOutcome::Fetch(None);
    }
    for tier in &request.shared.tiers {
        match tier.claim(request.wanted(), usable).await {
            Claim::Free | Claim::Uncacheable => {}
            Claim::Lead(ticket) => {
                let uncacheable = AtomicBool::new(false);
                return LockOutcome::Fetch(Some(FetchLock {
                    tier: Arc::clone(tier),
                    ticket,
                    uncacheable,
                }));
            }
            Claim::Fetched(entry) => return LockOutcome::Fetched(entry),
        }
    }
    LockOutcome::Fetch(None)
}

/// Copies what another pod has stored into memory, if it is valid and its route's rules are those
/// by which it was stored. `false` if it was not taken.
pub fn adopt(shared: &Shared, entry: &Arc<Entry>, from: Scope) -> bool {
    let Ok(uri) = std::str::from_utf8(entry.uri()) else { return false };
    let Some((_, rest)) = uri.split_once("://") else { return false };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let active = shared.active();
    let route = active.snapshot.route(RouteQuery {
        host,
        path: path.split('?').next().unwrap_or("/"),
        method: &Method::GET,
        headers: &HeaderMap::new(),
        peer: None,
    });
    let by_the_rules = route.cache_enabled
        && route.redis.enabled
        && scope(route) == from
        && route.epoch == entry.policy_epoch;
    let valid = |entry: &Entry| shared.log.verdict(entry) != Verdict::Void;
    by_the_rules && valid(entry) && shared.memory.put(entry, valid).is_ok()
}
