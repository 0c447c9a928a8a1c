//! The compiled guard of a route: the form that the data path reads.

use std::time::Duration;

use http::HeaderName;
use outrigger_guard::{BackoffRules, BreakerRules, LimiterRules, MissRules};

use crate::guard::{FailureSet, Priority};

/// How the upstream is called and spared for a route.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardRules {
    /// How long each part of a request may take.
    pub deadlines: DeadlineRules,
    /// Whether the time that a caller has left counts.
    pub honor_caller: bool,
    /// Which requests are given up first under overload.
    pub priority: Priority,
    /// When requests are sent again; `None` for never.
    pub retries: Option<RetryPolicy>,
    /// What counts as failure, for the breaker and for the ejection of endpoints.
    pub failures: FailureSet,
    /// A response head later than this is slow.
    pub slow_after: Duration,
    /// Rules of the circuit breaker; `None` for no breaker.
    pub breaker: Option<BreakerRules>,
    /// The limit on requests under way.
    pub concurrency: ConcurrencyPolicy,
    /// The limit on misses under way.
    pub misses: MissPolicy,
    /// Refreshes under way at most.
    pub refreshes_max: u32,
    /// Refreshes begin up to this much later.
    pub refresh_jitter: Duration,
    /// The pause after a failed validation.
    pub backoff: BackoffRules,
    /// What the route has for itself.
    pub own: Own,
}

/// DeadlineRules for the upstream, milliseconds; `None` leaves the bootstrap's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadlineRules {
    /// To connect by TCP.
    pub connect_ms: Option<u64>,
    /// For the TLS handshake.
    pub tls_ms: Option<u64>,
    /// Request to end of response.
    pub total_ms: Option<u64>,
    /// Request to response head.
    pub first_byte_ms: Option<u64>,
    /// Longest pause within a response.
    pub idle_ms: Option<u64>,
}

/// When a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Share of the requests, percent.
    pub percent: u8,
    /// Retries of one request at most.
    pub max: u32,
    /// Failures after which a request is sent again.
    pub on: FailureSet,
    /// Pause before the first retry.
    pub backoff: Duration,
}

/// The limit on requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyPolicy {
    /// How many requests may be under way, and how many may wait.
    pub rules: LimiterRules,
    /// How long a request may wait for a place.
    pub queue_for: Duration,
}

/// The limit on misses under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissPolicy {
    /// How many misses may be under way, in all and for one client.
    pub rules: MissRules,
    /// The field that tells clients apart; `None` for their address.
    pub client: Option<HeaderName>,
}

/// What a route has for itself, rather than sharing it with the upstream's other routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Whether it has a breaker of its own.
    pub breaker: bool,
    /// Whether it has a retry budget of its own.
    pub retries: bool,
    /// Whether it has a limit on requests of its own.
    pub concurrency: bool,
    /// Whether it has a limit on misses of its own.
    pub misses: bool,
    /// Whether it has a limit on refreshes of its own.
    pub refreshes: bool,
}
