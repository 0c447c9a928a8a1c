//! The part of the other pods in a fetch: what they have stored meanwhile is used, and where the
//! tier keeps order, one pod fetches for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_policy::Url;
use outrigger_store::tier::Usable;
use outrigger_store::{Claim, ClaimTicket, Entry, Settled, ShareScope, Tier};

use crate::pipeline::request::RequestView;
use crate::pipeline::sharing::scope;
use crate::state::Shared;

/// The right to fetch for all pods; given back when dropped.
pub(crate) struct FetchLock {
    tier: Arc<dyn Tier>,
    ticket: ClaimTicket,
    uncacheable: AtomicBool,
}

impl FetchLock {
    /// The others need not wait for what cannot be shared.
    pub(crate) fn mark_uncacheable(&self) {
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
/// `usable`. If the response turned out not to be shareable, every pod fetches for itself.
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

/// Copies what another pod has stored into memory, if it is valid and there is a route that a
/// request for it can find, with the rules by which it was stored. `false` if it was not taken.
pub fn adopt(shared: &Shared, entry: &Arc<Entry>, from: ShareScope) -> bool {
    let Ok(uri) = std::str::from_utf8(entry.uri()) else { return false };
    let Ok(url) = Url::parse(uri) else { return false };
    let active = shared.active();
    let by_the_rules = active.snapshot.possible_routes(url.target()).iter().any(|route| {
        route.cache_enabled
            && route.redis.enabled
            && scope(route) == from
            && route.rules_fingerprint == entry.rules_fingerprint
    });
    by_the_rules && shared.remember(entry)
}
