//! What a circuit breaker is told and what it tells: results, states, and the changes between them
//! with their reasons. The names are stable: metrics, logs and the admin port use them.

use std::time::Duration;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Requests pass.
    Closed,
    /// Requests are rejected.
    Open,
    /// A few requests pass, to see.
    HalfOpen,
}

impl State {
    /// The stable name in metrics, logs and the admin port.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too large a share of failures.
    FailureRatio,
    /// Too large a share of slow requests.
    SlowRatio,
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// The open time is over.
    OpenTimeOver,
    /// A probe failed.
    ProbeFailed,
    /// All probes succeeded.
    ProbesSucceeded,
    /// An operator forced it.
    Forced,
    /// An operator let it judge for itself again.
    Released,
}

impl Reason {
    /// The stable name in metrics, logs and the admin port.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailureRatio => "failure-ratio",
            Self::SlowRatio => "slow-ratio",
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::OpenTimeOver => "open-time-over",
            Self::ProbeFailed => "probe-failed",
            Self::ProbesSucceeded => "probes-succeeded",
            Self::Forced => "forced",
            Self::Released => "released",
        }
    }
}

/// What an operator forces on a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Everything is rejected.
    Open,
    /// Everything passes.
    Closed,
}

/// A change of state, for one log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// From.
    pub from: State,
    /// To.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// Requests of the window at that moment.
    pub requests: u32,
    /// Failures among them.
    pub failed: u32,
    /// How long it stays open, if it opened by itself.
    pub open_for: Option<Duration>,
}

/// How a request turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered.
    Succeeded {
        /// Later than it should have been.
        slow: bool,
    },
    /// It failed, by what counts as failure.
    Failed,
    /// It says nothing: its client left.
    Unknown,
}

/// What an operator sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// State.
    pub state: State,
    /// What is forced, if anything.
    pub forced: Option<Force>,
    /// Requests in the window.
    pub requests: u32,
    /// Failures among them.
    pub failed: u32,
    /// Slow ones among them.
    pub slow: u32,
    /// Time until the next probe; zero unless open.
    pub open_left: Duration,
    /// Why it changed its state the last time.
    pub reason: Option<Reason>,
}
