//! The guard of each route of a policy.
//!
//! A machine whose rules have not changed outlives the policy that it was made for: a reload
//! neither closes an open breaker nor forgets a learned limit.

use std::sync::Arc;
use std::time::Duration;

use outrigger_guard::{
    Breaker, BreakerStatus, Force, Limiter, LimiterRules, LimiterStatus, MissBudget, MissPermit,
    MissRules, OverBudget, RetryBudget, Slots,
};
use outrigger_policy::guard::GuardRules;
use outrigger_policy::{Route, Snapshot};

use crate::guard::report::NamedBreaker;
use crate::guard::revalidation::RevalidationWatch;
use crate::upstream::{Overload, UpstreamError};

/// Name of the machines that all routes without rules of their own use.
const COMMON: &str = "upstream";

/// A machine that a reload keeps as long as its name and its rules stay the same.
#[derive(Debug)]
pub(crate) struct KeptMachine<M, R> {
    /// `upstream`, `HOST:PORT`, `route:NAME` and the like; see [`BreakerState::name`].
    pub(crate) name: Arc<str>,
    pub(crate) machine: M,
    /// The rules that it was made with.
    rules: R,
}

type KeptLimiter = KeptMachine<Arc<Limiter>, LimiterRules>;
type KeptMissBudget = KeptMachine<Arc<MissBudget>, MissRules>;
type KeptSlots = KeptMachine<Arc<Slots>, u32>;
type KeptRetryBudget = KeptMachine<RetryBudget, u8>;

/// The guard of one route.
#[derive(Debug)]
pub(crate) struct RouteGuard {
    pub(crate) rules: GuardRules,
    pub(crate) breaker: Option<Arc<NamedBreaker>>,
    pub(crate) limiter: Arc<KeptLimiter>,
    pub(crate) budget: Option<Arc<KeptRetryBudget>>,
    misses: Arc<KeptMissBudget>,
    pub(super) refreshes: Arc<KeptSlots>,
    pub(super) watch: Arc<RevalidationWatch>,
}

impl RouteGuard {
    /// Now, by the clock of the guards.
    pub(crate) fn now(&self) -> Duration {
        self.watch.now()
    }

    /// Counts a decision about a retry.
    pub(crate) fn count_retry(&self, result: &'static str) {
        self.watch.metrics.guard.count_retry(result);
    }

    /// Begins a fetch for a miss, for the client with this hash of its address.
    ///
    /// # Errors
    /// The limit on simultaneous fetches is reached, in total or for this client.
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

    /// Takes a place for a background refresh, if one is free.
    pub(crate) fn begin_refresh(&self) -> Option<outrigger_guard::Slot> {
        self.refreshes.machine.take()
    }
}

/// The guards of all routes of a policy.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// Name of the destination that they are for; `None` for the configured upstream.
    destination: Option<Box<str>>,
    routes: Vec<Arc<RouteGuard>>,
    breakers: Vec<Arc<NamedBreaker>>,
    limiters: Vec<Arc<KeptLimiter>>,
    budgets: Vec<Arc<KeptRetryBudget>>,
    misses: Vec<Arc<KeptMissBudget>>,
    refreshes: Vec<Arc<KeptSlots>>,
}

impl Guards {
    /// Makes the guards of a policy for the configured upstream, or for a `destination` by its name.
    /// Machines of `before` whose rules have not changed are kept.
    pub(crate) fn of(
        snapshot: &Snapshot,
        before: &Guards,
        watch: &Arc<RevalidationWatch>,
        destination: Option<&str>,
    ) -> Self {
        let mut guards = Guards { destination: destination.map(Box::from), ..Guards::default() };
        // From the last route, which has the common machines: so they exist even if every other
        // route has machines of its own.
        for route in snapshot.routes().iter().rev() {
            let guard = guards.guard(route, before, watch);
            guards.routes.push(Arc::new(guard));
        }
        guards.routes.reverse();
        guards
    }

    /// The guard of a route of that snapshot which they were made for.
    pub(crate) fn of_route(&self, route: &Route) -> &Arc<RouteGuard> {
        &self.routes[route.id]
    }

    fn guard(
        &mut self,
        route: &Route,
        before: &Guards,
        watch: &Arc<RevalidationWatch>,
    ) -> RouteGuard {
        let rules = route.guard.clone();
        let destination = self.destination.clone();
        let name = |own: bool| -> Arc<str> {
            match (own, &destination) {
                (false, None) => COMMON.into(),
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
        watch: &RevalidationWatch,
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
                // A state that an operator has forced stays under new rules.
                machine.force(old.and_then(|old| old.machine.status(now).forced), now);
                Arc::new(NamedBreaker { name, machine, ejections: None })
            }
        };
        self.breakers.push(Arc::clone(&breaker));
        Some(breaker)
    }

    /// Forces a state on the breaker of this name, or on all. Returns the number of breakers.
    pub(crate) fn force(
        &self,
        name: Option<&str>,
        force: Option<Force>,
        watch: &RevalidationWatch,
    ) -> usize {
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

    /// Adds the states of these guards to what operators see.
    pub(crate) fn tell(&self, watch: &RevalidationWatch, state: &mut GuardState) {
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

/// The machine of this name: the one made already, that of the policy before if its rules are the
/// same, or a new one.
fn keep<M, R: PartialEq>(
    have: &mut Vec<Arc<KeptMachine<M, R>>>,
    before: &[Arc<KeptMachine<M, R>>],
    name: Arc<str>,
    rules: R,
    make: impl FnOnce(&R) -> M,
) -> Arc<KeptMachine<M, R>> {
    if let Some(found) = have.iter().find(|found| found.name == name) {
        return Arc::clone(found);
    }
    let same = |old: &&Arc<KeptMachine<M, R>>| old.name == name && old.rules == rules;
    let made = match before.iter().find(same) {
        Some(old) => Arc::clone(old),
        None => Arc::new(KeptMachine { name: Arc::clone(&name), machine: make(&rules), rules }),
    };
    have.push(Arc::clone(&made));
    made
}

/// State of a circuit breaker, for operators.
#[derive(Clone, Debug)]
pub struct BreakerState {
    /// `upstream`, `inbound:PORT` or `HOST:PORT`; a route's own `route:NAME`, or
    /// `route:NAME@inbound:PORT` and the like.
    pub name: String,
    /// State of the machine, with the figures of its window.
    pub status: BreakerStatus,
}

/// State of a concurrency limit, for operators.
#[derive(Clone, Debug)]
pub struct LimiterState {
    /// As [`BreakerState::name`].
    pub name: String,
    /// Limit, requests under way and queue.
    pub status: LimiterStatus,
}

/// The guard of the upstream, for operators.
#[derive(Clone, Debug, Default)]
pub struct GuardState {
    /// All circuit breakers, those of the configured upstream first.
    pub breakers: Vec<BreakerState>,
    /// All concurrency limits, in the same order.
    pub limiters: Vec<LimiterState>,
    /// Fetches for misses under way.
    pub misses: u32,
    /// Background refreshes under way.
    pub refreshes: u32,
    /// Keys that are in back-off after a failed validation.
    pub backing_off: u64,
}
