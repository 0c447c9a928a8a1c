//! The guard of each route of a policy. A machine whose rules have not changed outlives the policy
//! that it came with: a reload neither closes an open breaker nor forgets a learned limit.

use std::sync::Arc;
use std::time::Duration;

use outrigger_guard::{
    Breaker, BreakerStatus, Force, Limiter, LimiterRules, LimiterStatus, MissBudget, MissPermit,
    MissRules, OverBudget, RetryBudget, Slots,
};
use outrigger_policy::guard::GuardRules;
use outrigger_policy::{Route, Snapshot};

use crate::error::{Overload, UpstreamError};
use crate::guard::report::NamedBreaker;
use crate::guard::watch::Watch;

/// The name of what all routes share.
const SHARED: &str = "upstream";

/// A machine with the name of its scope and the rules it was made by.
#[derive(Debug)]
pub(crate) struct Named<M, R> {
    pub(crate) name: Arc<str>,
    pub(crate) machine: M,
    rules: R,
}

type NamedLimiter = Named<Arc<Limiter>, LimiterRules>;
type NamedMisses = Named<Arc<MissBudget>, MissRules>;
type NamedSlots = Named<Arc<Slots>, u32>;
type NamedBudget = Named<RetryBudget, u8>;

/// The guard of one route.
#[derive(Debug)]
pub(crate) struct RouteGuard {
    pub(crate) rules: GuardRules,
    pub(crate) breaker: Option<Arc<NamedBreaker>>,
    pub(crate) limiter: Arc<NamedLimiter>,
    pub(crate) budget: Option<Arc<NamedBudget>>,
    misses: Arc<NamedMisses>,
    pub(super) refreshes: Arc<NamedSlots>,
    pub(super) watch: Arc<Watch>,
}

impl RouteGuard {
    /// Now, by the clock of the guards.
    pub(crate) fn now(&self) -> Duration {
        self.watch.now()
    }

    /// Counts what was decided about a retry.
    pub(crate) fn count_retry(&self, result: &'static str) {
        self.watch.metrics.guard.count_retry(result);
    }

    /// Begins a miss for a client.
    ///
    /// # Errors
    /// As many are under way as may be.
    pub(crate) fn begin_miss(&self, client: Option<u64>) -> Result<MissPermit, UpstreamError> {
        self.misses.machine.begin(client).map_err(|over| {
            let error = UpstreamError::Overload(match over {
                OverBudget::Upstream => Overload::Misses,
                OverBudget::Client => Overload::ClientMisses,
            });
            self.count_refused(&error);
            error
        })
    }

    /// Counts a request that was not sent.
    pub(crate) fn count_refused(&self, refusal: &UpstreamError) {
        self.watch.metrics.guard.count_refused(refusal.code());
    }

    /// A place for a refresh, if one is free.
    pub(crate) fn begin_refresh(&self) -> Option<outrigger_guard::Slot> {
        self.refreshes.machine.take()
    }
}

/// The guards of all routes of a policy.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// Host and port of the service that they are for; `None` for the configured upstream.
    destination: Option<Box<str>>,
    routes: Vec<Arc<RouteGuard>>,
    breakers: Vec<Arc<NamedBreaker>>,
    limiters: Vec<Arc<NamedLimiter>>,
    budgets: Vec<Arc<NamedBudget>>,
    misses: Vec<Arc<NamedMisses>>,
    refreshes: Vec<Arc<NamedSlots>>,
}

impl Guards {
    /// Makes the guards of a policy, with what can be kept of those before: of the upstream, or of
    /// a `destination`, host and port.
    pub(crate) fn of(
        snapshot: &Snapshot,
        before: &Guards,
        watch: &Arc<Watch>,
        destination: Option<&str>,
    ) -> Self {
        let mut guards = Guards { destination: destination.map(Box::from), ..Guards::default() };
        // The shared ones come first, so that they are there although each route has its own.
        for route in snapshot.routes().iter().rev() {
            let guard = guards.guard(route, before, watch);
            guards.routes.push(Arc::new(guard));
        }
        guards.routes.reverse();
        guards
    }

    /// The guard of a route of the snapshot that they were made for.
    pub(crate) fn of_route(&self, route: &Route) -> &Arc<RouteGuard> {
        &self.routes[route.id]
    }

    fn guard(&mut self, route: &Route, before: &Guards, watch: &Arc<Watch>) -> RouteGuard {
        let rules = route.guard.clone();
        let destination = self.destination.clone();
        let name = |own: bool| -> Arc<str> {
            match (own, &destination) {
                (false, None) => SHARED.into(),
                (true, None) => format!("route:{}", route.name).into(),
                (false, Some(destination)) => destination.as_ref().into(),
                (true, Some(destination)) => format!("route:{}@{destination}", route.name).into(),
            }
        };
        let own = rules.own;
        RouteGuard {
            breaker: self.breaker(name(own.breaker), &rules, before, watch),
            limiter: keep(
                &mut self.limiters,
                &before.limiters,
                name(own.concurrency),
                rules.concurrency.rules,
                |rules| Limiter::new(*rules),
            ),
            budget: rules.retries.map(|retries| {
                keep(
                    &mut self.budgets,
                    &before.budgets,
                    name(own.retries),
                    retries.percent,
                    |percent| RetryBudget::new(*percent),
                )
            }),
            misses: keep(
                &mut self.misses,
                &before.misses,
                name(own.misses),
                rules.misses.rules,
                |rules| MissBudget::new(*rules),
            ),
            refreshes: keep(
                &mut self.refreshes,
                &before.refreshes,
                name(own.refreshes),
                rules.refreshes_max,
                |max| Slots::new(*max),
            ),
            rules,
            watch: Arc::clone(watch),
        }
    }

    fn breaker(
        &mut self,
        name: Arc<str>,
        rules: &GuardRules,
        before: &Guards,
        watch: &Watch,
    ) -> Option<Arc<NamedBreaker>> {
        let wanted = rules.breaker?;
        if let Some(have) = self.breakers.iter().find(|have| have.name == name) {
            return Some(Arc::clone(have));
        }
        let old = before.breakers.iter().find(|old| old.name == name);
        let breaker = match old.filter(|old| *old.machine.rules() == wanted) {
            Some(old) => Arc::clone(old),
            None => {
                let machine = Breaker::new(wanted);
                let now = watch.now();
                // What an operator has forced stays in force under new rules.
                machine.force(old.and_then(|old| old.machine.status(now).forced), now);
                Arc::new(NamedBreaker { name, machine, ejections: None })
            }
        };
        self.breakers.push(Arc::clone(&breaker));
        Some(breaker)
    }

    /// Forces a state on the breaker of this name, or on all; how many there were.
    pub(crate) fn force(&self, name: Option<&str>, force: Option<Force>, watch: &Watch) -> usize {
        let named = |breaker: &&Arc<NamedBreaker>| name.is_none_or(|name| *breaker.name == *name);
        let mut count = 0;
        for breaker in self.breakers.iter().filter(named) {
            count += 1;
            if let Some(change) = breaker.machine.force(force, watch.now()) {
                breaker.tell(watch, &change);
            }
        }
        count
    }

    /// Adds what operators see.
    pub(crate) fn tell(&self, watch: &Watch, state: &mut GuardState) {
        let now = watch.now();
        state.breakers.extend(self.breakers.iter().map(|breaker| BreakerState {
            name: breaker.name.to_string(),
            status: breaker.machine.status(now),
        }));
        state.limiters.extend(self.limiters.iter().map(|limiter| LimiterState {
            name: limiter.name.to_string(),
            status: limiter.machine.status(),
        }));
        state.misses += self.misses.iter().map(|misses| misses.machine.under_way()).sum::<u32>();
        state.refreshes += self.refreshes.iter().map(|slots| slots.machine.taken()).sum::<u32>();
    }
}

/// The machine of a scope: the one that is there already, that of the policy before if its rules
/// were the same, or a new one.
fn keep<M, R: PartialEq>(
    have: &mut Vec<Arc<Named<M, R>>>,
    before: &[Arc<Named<M, R>>],
    name: Arc<str>,
    rules: R,
    make: impl FnOnce(&R) -> M,
) -> Arc<Named<M, R>> {
    if let Some(found) = have.iter().find(|found| found.name == name) {
        return Arc::clone(found);
    }
    let same = |old: &&Arc<Named<M, R>>| old.name == name && old.rules == rules;
    let made = match before.iter().find(same) {
        Some(old) => Arc::clone(old),
        None => Arc::new(Named { name: Arc::clone(&name), machine: make(&rules), rules }),
    };
    have.push(Arc::clone(&made));
    made
}

/// A breaker, for operators.
#[derive(Clone, Debug)]
pub struct BreakerState {
    /// `upstream`, `inbound:PORT` or `HOST:PORT`; a route's own `route:NAME`, or
    /// `route:NAME@inbound:PORT` and the like.
    pub name: String,
    /// Its state.
    pub status: BreakerStatus,
}

/// A limit on requests under way, for operators.
#[derive(Clone, Debug)]
pub struct LimiterState {
    /// `upstream`, or `route:NAME`.
    pub name: String,
    /// Its state.
    pub status: LimiterStatus,
}

/// The guard of the upstream, for operators.
#[derive(Clone, Debug, Default)]
pub struct GuardState {
    /// The breakers.
    pub breakers: Vec<BreakerState>,
    /// The limits on requests under way.
    pub limiters: Vec<LimiterState>,
    /// Misses under way.
    pub misses: u32,
    /// Refreshes under way.
    pub refreshes: u32,
    /// Keys that wait before they are validated again.
    pub backing_off: u64,
}
