//! A circuit breaker: closed, open, half-open.
//!
//! Closed, it counts over a sliding window. Open, it rejects everything for a time that grows with
//! each opening in a row. Half-open, it lets a few probes through: the first that fails opens it
//! again, and when all have succeeded it closes. A result counts only in the period in which its
//! request was admitted, so that late results of an outage cannot disturb a recovery.

use std::time::Duration;

use crate::sync::{Mutex, lock};
pub use crate::transition::{BreakerStatus, Force, Reason, State, TicketResult, Transition};
use crate::window::{Counts, Window};

/// How much longer than its nominal time a breaker stays open at most, so that many do not probe
/// at the same moment.
const JITTER: f64 = 0.2;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Percent of failures among the requests of the window that open it; `None` for never.
    pub failure_percent: Option<u8>,
    /// Percent of slow requests that open it; `None` for never.
    pub slow_percent: Option<u8>,
    /// Requests in the window below which no share opens it.
    pub requests_min: u32,
    /// Failures in a row that open it; `None` for never.
    pub consecutive: Option<u32>,
    /// How long a row of failures must last for that.
    pub consecutive_for: Duration,
    /// How far back requests are counted.
    pub window: Duration,
    /// Time of the first opening.
    pub open_for: Duration,
    /// Bound of the doubled times of further openings.
    pub open_max: Duration,
    /// Probes that must succeed to close it, and that are under way at most.
    pub probes: u32,
}

/// The right to send one request; its result is handed back with [`Breaker::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe that is never settled holds up the recovery"]
pub struct Ticket {
    epoch: u64,
    probe: bool,
}

impl Ticket {
    /// Whether the request is a probe of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    #[cfg(test)]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What a breaker answers to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The right to send, or how long to stay away.
    pub ticket: Result<Ticket, Duration>,
    /// The change of state that the question brought about.
    pub transition: Option<Transition>,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { admitted: u32, succeeded: u32, until: Duration },
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    forced: Option<Force>,
    window: Window,
    in_a_row: u32,
    /// When the row of failures began.
    row_began: Duration,
    /// Openings in a row, with less than a window closed between them.
    streak: u32,
    closed_since: Option<Duration>,
    epoch: u64,
    reason: Option<Reason>,
}

/// A circuit breaker, shared by all who send to the same place.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    inner: Mutex<Inner>,
}

impl Breaker {
    /// A breaker that begins closed and goes by these rules.
    pub fn new(rules: BreakerRules) -> Self {
        let inner = Inner {
            phase: Phase::Closed,
            forced: None,
            window: Window::new(rules.window),
            in_a_row: 0,
            row_began: Duration::ZERO,
            streak: 0,
            closed_since: None,
            epoch: 0,
            reason: None,
        };
        Breaker { rules, inner: Mutex::new(inner) }
    }

    /// The rules it goes by.
    pub fn rules(&self) -> &BreakerRules {
        &self.rules
    }

    /// Asks whether a request may be sent at `now`, time since any fixed moment.
    pub fn admit(&self, now: Duration) -> Admitted {
        let mut inner = lock(&self.inner);
        match inner.forced {
            Some(Force::Open) => {
                return Admitted { ticket: Err(self.rules.open_for), transition: None };
            }
            Some(Force::Closed) => {
                let ticket = Ok(Ticket { epoch: inner.epoch, probe: false });
                return Admitted { ticket, transition: None };
            }
            None => {}
        }
        let transition = match inner.phase {
            Phase::Open { until } if now >= until => Some(inner.enter_half_open(now, &self.rules)),
            Phase::HalfOpen { until, .. } if now >= until => {
                // Probes that do not end are given up; their results no longer count.
                inner.begin_probing(now, &self.rules);
                None
            }
            _ => None,
        };
        let epoch = inner.epoch;
        let ticket = match &mut inner.phase {
            Phase::Closed => Ok(Ticket { epoch, probe: false }),
            Phase::Open { until } => Err(until.saturating_sub(now)),
            Phase::HalfOpen { admitted, .. } if *admitted < self.rules.probes.max(1) => {
                *admitted += 1;
                Ok(Ticket { epoch, probe: true })
            }
            Phase::HalfOpen { until, .. } => Err(until.saturating_sub(now)),
        };
        Admitted { ticket, transition }
    }

    /// How long a request would have to stay away; `None` if it would be let through. Changes nothing.
    pub fn rejects(&self, now: Duration) -> Option<Duration> {
        let inner = lock(&self.inner);
        match (inner.forced, &inner.phase) {
            (Some(Force::Open), _) => Some(self.rules.open_for),
            (Some(Force::Closed), _) | (None, Phase::Closed) => None,
            (None, Phase::Open { until }) => (now < *until).then(|| until.saturating_sub(now)),
            (None, Phase::HalfOpen { admitted, until, .. }) => {
                let full = *admitted >= self.rules.probes.max(1) && now < *until;
                full.then(|| until.saturating_sub(now))
            }
        }
    }

    /// Takes the result of an admitted request. `jitter`, 0 to 1, spreads the end of an open time.
    /// A closed breaker opens only if `may_open`.
    pub fn settle(
        &self,
        ticket: Ticket,
        result: TicketResult,
        now: Duration,
        jitter: f64,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let mut inner = lock(&self.inner);
        if ticket.epoch != inner.epoch {
            return None;
        }
        let bad = match result {
            TicketResult::Failed => true,
            TicketResult::Succeeded { slow } => slow && self.rules.slow_percent.is_some(),
            TicketResult::Unknown => false,
        };
        match &mut inner.phase {
            Phase::Closed => {
                inner.count(result, now)?;
                let reason = inner.should_open(now, &self.rules)?;
                if inner.forced.is_some() || !may_open() {
                    return None;
                }
                inner.streak = match inner.closed_since {
                    Some(since) if now.saturating_sub(since) < self.rules.window => {
                        inner.streak.saturating_add(1)
                    }
                    _ => 1,
                };
                Some(inner.open(now, jitter, reason, &self.rules))
            }
            Phase::HalfOpen { .. } if bad => {
                inner.streak = inner.streak.saturating_add(1);
                Some(inner.open(now, jitter, Reason::ProbeFailed, &self.rules))
            }
            Phase::HalfOpen { admitted, .. } if result == TicketResult::Unknown => {
                *admitted = admitted.saturating_sub(1);
                None
            }
            Phase::HalfOpen { succeeded, .. } => {
                *succeeded += 1;
                let done = *succeeded >= self.rules.probes.max(1);
                done.then(|| inner.close(now, Reason::ProbesSucceeded))
            }
            Phase::Open { .. } => None,
        }
    }

    /// Forces a state, or with `None` lets the breaker judge for itself again, from closed.
    pub fn force(&self, force: Option<Force>, now: Duration) -> Option<Transition> {
        let mut inner = lock(&self.inner);
        let before = inner.state();
        if inner.forced == force {
            return None;
        }
        let reason = if force.is_some() { Reason::Forced } else { Reason::Released };
        inner.forced = None;
        let mut transition = inner.close(now, reason);
        inner.streak = 0;
        inner.forced = force;
        transition.from = before;
        transition.to = inner.state();
        Some(transition)
    }

    /// The state and counts for the admin port.
    pub fn status(&self, now: Duration) -> BreakerStatus {
        let mut inner = lock(&self.inner);
        let Counts { total, failed, slow } = inner.window.sum(now);
        let open_left = match inner.phase {
            Phase::Open { until } if inner.forced.is_none() => until.saturating_sub(now),
            _ => Duration::ZERO,
        };
        BreakerStatus {
            state: inner.state(),
            forced: inner.forced,
            requests: total,
            failed,
            slow,
            open_left,
            reason: inner.reason,
        }
    }

    /// The state, for gauges.
    pub fn state(&self) -> State {
        lock(&self.inner).state()
    }
}

impl Inner {
    fn state(&self) -> State {
        match (self.forced, &self.phase) {
            (Some(Force::Open), _) => State::Open,
            (Some(Force::Closed), _) | (None, Phase::Closed) => State::Closed,
            (None, Phase::Open { .. }) => State::Open,
            (None, Phase::HalfOpen { .. }) => State::HalfOpen,
        }
    }

    /// Counts a result; `None` if it is unknown and does not count.
    fn count(&mut self, result: TicketResult, now: Duration) -> Option<()> {
        let (failed, slow) = match result {
            TicketResult::Unknown => return None,
            TicketResult::Failed => (1, 0),
            TicketResult::Succeeded { slow } => (0, u32::from(slow)),
        };
        self.in_a_row = if failed == 1 { self.in_a_row.saturating_add(1) } else { 0 };
        if self.in_a_row == 1 {
            self.row_began = now;
        }
        self.window.add(now, Counts { total: 1, failed, slow });
        Some(())
    }

    fn should_open(&mut self, now: Duration, rules: &BreakerRules) -> Option<Reason> {
        let lasted = now.saturating_sub(self.row_began);
        let is_row = rules.consecutive.is_some_and(|max| self.in_a_row >= max.max(1));
        if is_row && lasted >= rules.consecutive_for {
            return Some(Reason::ConsecutiveFailures);
        }
        let counts = self.window.sum(now);
        if counts.total < rules.requests_min.max(1) {
            return None;
        }
        let reaches = |part: u32, percent: Option<u8>| {
            percent.is_some_and(|percent| {
                part > 0 && u64::from(part) * 100 >= u64::from(percent) * u64::from(counts.total)
            })
        };
        if reaches(counts.failed, rules.failure_percent) {
            return Some(Reason::FailureRatio);
        }
        reaches(counts.slow, rules.slow_percent).then_some(Reason::SlowRatio)
    }

    fn moved(&mut self, from: State, to: State, reason: Reason, counts: Counts) -> Transition {
        self.epoch += 1;
        self.reason = Some(reason);
        let Counts { total: requests, failed, .. } = counts;
        Transition { from, to, reason, requests, failed, open_for: None }
    }

    fn open(
        &mut self,
        now: Duration,
        jitter: f64,
        reason: Reason,
        rules: &BreakerRules,
    ) -> Transition {
        let doubled = rules.open_for.saturating_mul(1 << (self.streak.clamp(1, 20) - 1));
        let nominal = doubled.min(rules.open_max.max(rules.open_for));
        let open_for = nominal.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
        let (from, counts) = (self.state(), self.window.sum(now));
        self.phase = Phase::Open { until: now + open_for };
        self.window.clear();
        self.in_a_row = 0;
        let transition = self.moved(from, State::Open, reason, counts);
        Transition { open_for: Some(open_for), ..transition }
    }

    fn enter_half_open(&mut self, now: Duration, rules: &BreakerRules) -> Transition {
        self.begin_probing(now, rules);
        self.moved(State::Open, State::HalfOpen, Reason::OpenTimeOver, Counts::default())
    }

    /// Begins to probe. The probes are given as long as the breaker was open the first time.
    fn begin_probing(&mut self, now: Duration, rules: &BreakerRules) {
        self.epoch += 1;
        let until = now + rules.open_for.max(Duration::from_secs(1));
        self.phase = Phase::HalfOpen { admitted: 0, succeeded: 0, until };
    }

    fn close(&mut self, now: Duration, reason: Reason) -> Transition {
        let (from, counts) = (self.state(), self.window.sum(now));
        self.phase = Phase::Closed;
        self.window.clear();
        self.in_a_row = 0;
        self.closed_since = Some(now);
        self.moved(from, State::Closed, reason, counts)
    }
}
