//! What goes into a circuit breaker and what comes out of it: results, states, and the changes of
//! state with their reasons. The names in kebab-case are stable: metrics, logs and the admin port use
//! them.

use std::time::Duration;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum State {
    /// Requests are let through and counted.
    Closed,
    /// Requests are rejected until a time is over.
    Open,
    /// A few requests are let through as probes; the rest is rejected.
    HalfOpen,
}

impl State {
    /// The stable name in metrics, logs and the admin port.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// Too large a share of failures.
    FailureRatio,
    /// Too large a share of slow requests.
    SlowRatio,
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// The open time is over.
    OpenTimeOver,
    /// A probe of the half-open breaker failed.
    ProbeFailed,
    /// All probes of the half-open breaker succeeded.
    ProbesSucceeded,
    /// An operator forced it.
    Forced,
    /// An operator let it judge for itself again.
    Released,
}

impl Reason {
    /// The stable name in metrics, logs and the admin port.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What an operator forces on a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Reject every request.
    Open,
    /// Let every request through.
    Closed,
}

/// A change of state, for one log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why the state changed.
    pub reason: Reason,
    /// Requests in the window when the state changed.
    pub requests: u32,
    /// How many of these requests failed.
    pub failed: u32,
    /// How long it stays open, if it opened by itself.
    pub open_for: Option<Duration>,
}

/// How the request of a [`Ticket`](crate::Ticket) turned out, as far as the breaker counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketResult {
    /// It was answered, and the answer is no failure.
    Succeeded {
        /// Later than it should have been.
        slow: bool,
    },
    /// It failed, by what the policy counts as failure.
    Failed,
    /// It does not count: its client left before the response head.
    Unknown,
}

/// State and counts of a breaker, for the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// The state, forced or not.
    pub state: State,
    /// What is forced, if anything.
    pub forced: Option<Force>,
    /// Requests in the window.
    pub requests: u32,
    /// How many of these requests failed.
    pub failed: u32,
    /// How many of these requests were slow.
    pub slow: u32,
    /// Time until the next probe; zero unless open.
    pub open_left: Duration,
    /// Why it changed its state the last time.
    pub reason: Option<Reason>,
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn names_are_stable() {
        let names: Vec<_> = State::VARIANTS.iter().map(|state| state.as_str()).collect();
        assert_eq!(names, ["closed", "open", "half-open"]);
        let names: Vec<_> = Reason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(
            names,
            [
                "failure-ratio",
                "slow-ratio",
                "consecutive-failures",
                "open-time-over",
                "probe-failed",
                "probes-succeeded",
                "forced",
                "released",
            ]
        );
    }
}
