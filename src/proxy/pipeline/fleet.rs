//! The part of the other pods in a fetch: what they have stored meanwhile is used, and where the
//! tier keeps order, one pod fetches for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Method};
use outrigger_coherence::Verdict;
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::{CacheKey, Route};
use outrigger_semantics::{RequestDirectives, UnixMillis};
use outrigger_store::lookup::Wanted;
use outrigger_store::{Claim, Entry, Scope, Settled, ShareRules, Ticket, Tier};

use crate::pipeline::job::Job;
use crate::pipeline::lookup::{self, Found};
use crate::state::Shared;

/// What of a route goes to the tiers that pods share.
pub(crate) fn share_rules(route: &Route) -> ShareRules {
    ShareRules {
        enabled: route.redis.enabled,
        scope: scope(route),
        object_bytes_max: route.redis.object_bytes_max,
        ttl_ms_min: route.redis.ttl_ms_min,
    }
}

fn scope(route: &Route) -> Scope {
    if route.redis.for_namespace { Scope::Namespace } else { Scope::Workload }
}

/// What a request asks the tiers for.
#[derive(Clone, Copy)]
pub(crate) struct Inquiry<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) route: &'a Route,
    pub(crate) key: &'a CacheKey,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) directives: &'a RequestDirectives,
    pub(crate) now: UnixMillis,
}

impl<'a> Inquiry<'a> {
    pub(crate) fn of(job: &'a Job) -> Self {
        Inquiry {
            shared: &job.worker.shared,
            route: &job.route,
            key: &job.key,
            headers: &job.parts.headers,
            directives: &job.directives,
            now: job.now,
        }
    }

    pub(crate) fn wanted(&self) -> Wanted<'a> {
        Wanted {
            digest: self.key.digest(),
            key: self.key.text(),
            headers: self.headers,
            policy_epoch: self.route.epoch,
            scope: scope(self.route),
        }
    }

    /// Whether the tiers can help: what other pods stored cannot be judged before the purge log has
    /// been read.
    pub(crate) fn may_ask(&self) -> bool {
        self.route.redis.enabled && self.shared.log.knows_others()
    }
}

/// The right to fetch for all pods; given back when dropped.
pub(crate) struct Claimed {
    tier: Arc<dyn Tier>,
    ticket: Ticket,
    uncacheable: AtomicBool,
}

impl Claimed {
    /// The others need not wait for what cannot be shared.
    pub(crate) fn is_uncacheable(&self) {
        self.uncacheable.store(true, Ordering::Relaxed);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let uncacheable = self.uncacheable.load(Ordering::Relaxed);
        let how = if uncacheable { Settled::Uncacheable } else { Settled::Done };
        self.tier.settle(self.ticket.clone(), how);
    }
}

/// Who fetches.
pub(crate) enum Turn {
    /// This pod, perhaps on behalf of all.
    Ours(Option<Claimed>),
    /// Another pod has.
    Fetched(Arc<Entry>),
}

/// Asks for the right to fetch; waits while another pod has it. Where the response turned out not
/// to be for others, every pod fetches for itself.
pub(crate) async fn turn(inquiry: Inquiry<'_>) -> Turn {
    if !inquiry.may_ask() {
        return Turn::Ours(None);
    }
    for tier in &inquiry.shared.tiers {
        let usable = |entry: &Arc<Entry>| lookup::is_usable(inquiry, entry);
        match tier.claim(inquiry.wanted(), &usable).await {
            Claim::Free | Claim::Uncacheable => {}
            Claim::Lead(ticket) => {
                let uncacheable = AtomicBool::new(false);
                return Turn::Ours(Some(Claimed { tier: Arc::clone(tier), ticket, uncacheable }));
            }
            Claim::Fetched(entry) => match lookup::adopted(inquiry, entry) {
                Found::Serve(entry, _) => return Turn::Fetched(entry),
                _ => return Turn::Ours(None),
            },
        }
    }
    Turn::Ours(None)
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
