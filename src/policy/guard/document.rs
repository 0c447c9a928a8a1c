//! The guard of a document or a route, as it is written.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::{ClientBy, FailureKind, Priority};
use crate::values::{Percent, Span};

/// How the upstream is called and spared. At the top of a document it holds for all routes; what a
/// route says about one of these points replaces it there, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GuardDocument {
    /// Time from the request to the end of the response. Absent: as in the bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Time for a TCP connection. Absent: as in the bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// Time for a TLS handshake. Absent: as in the bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_timeout: Option<Span>,
    /// Time from the request to the response head. Absent: as in the bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout: Option<Span>,
    /// Longest pause within a response. Absent: as in the bootstrap file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Whether the time that a caller has left counts (`x-envoy-expected-rq-timeout-ms`,
    /// `grpc-timeout`). Absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_deadline: Option<CallerDeadlineDocument>,
    /// What is given up first when not all requests can be sent. Absent: normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Sending a failed request again. Absent: never, beyond a connection that turned out closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesDocument>,
    /// When the upstream is left alone for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerDocument>,
    /// How many requests may be under way to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyDocument>,
    /// How many fetches for the cache may be under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misses: Option<MissesDocument>,
    /// Refreshes behind a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshes: Option<RefreshesDocument>,
    /// The pause before a stored response is validated again after that has failed. Until then it
    /// is served stale, where it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffDocument>,
}

impl GuardDocument {
    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &GuardDocument) -> GuardDocument {
        fn first<T: Clone>(this: &Option<T>, other: &Option<T>) -> Option<T> {
            this.as_ref().or(other.as_ref()).cloned()
        }
        GuardDocument {
            timeout: first(&self.timeout, &other.timeout),
            connect_timeout: first(&self.connect_timeout, &other.connect_timeout),
            tls_timeout: first(&self.tls_timeout, &other.tls_timeout),
            first_byte_timeout: first(&self.first_byte_timeout, &other.first_byte_timeout),
            idle_timeout: first(&self.idle_timeout, &other.idle_timeout),
            caller_deadline: first(&self.caller_deadline, &other.caller_deadline),
            priority: first(&self.priority, &other.priority),
            retries: first(&self.retries, &other.retries),
            breaker: first(&self.breaker, &other.breaker),
            concurrency: first(&self.concurrency, &other.concurrency),
            misses: first(&self.misses, &other.misses),
            refreshes: first(&self.refreshes, &other.refreshes),
            backoff: first(&self.backoff, &other.backoff),
        }
    }
}

/// Whether the time that a caller has left counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CallerDeadlineDocument {
    /// No request waits longer than its caller does.
    #[default]
    Honor,
    /// Only the timeouts here count.
    Ignore,
}

/// Sending a failed request again: only idempotent ones without a body, only before the first byte
/// of a response, never while the breaker is open or when the deadline would pass.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RetriesDocument {
    /// Retries may be this share of the requests of the last ten seconds (and three in any case).
    pub budget: Percent,
    /// For one request.
    pub max: NonZeroU32,
    /// After which failures.
    pub on: Vec<FailureKind>,
    /// Pause before the first; it doubles. `Retry-After` of the response counts if it is longer.
    pub backoff: Span,
}

impl Default for RetriesDocument {
    fn default() -> Self {
        use FailureKind::{Connect, Reset, Status};
        RetriesDocument {
            budget: Percent(20),
            max: NonZeroU32::MIN,
            on: vec![Connect, Reset, Status(502), Status(503), Status(504)],
            backoff: Span(25),
        }
    }
}

/// When the upstream is left alone, and for how long. Meanwhile what is stored is served stale
/// where it may be, and all else is answered at once with 503 and `Retry-After`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BreakerDocument {
    /// Whether there is one.
    pub enabled: bool,
    /// Share of failures that opens it.
    pub failure_ratio: Percent,
    /// What counts as failure.
    pub failures: Vec<FailureKind>,
    /// Share of slow responses that opens it. Absent: slowness does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_ratio: Option<Percent>,
    /// A response head later than this is slow.
    pub slow_after: Span,
    /// With fewer requests in the window it does not open.
    pub min_requests: NonZeroU32,
    /// It opens also when so long nothing has succeeded, and `minRequests` requests in a row have
    /// failed: an outage need not outweigh the good requests of the window before it.
    pub outage_after: Span,
    /// The time that shares are taken over.
    pub window: Span,
    /// How long it stays open the first time, up to a fifth longer by chance. It doubles with each
    /// opening in a row.
    pub open_for: Span,
    /// Longest time that it stays open. Absent: 1m, or `openFor` if that is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_max: Option<Span>,
    /// Requests that may probe the upstream then; when all have succeeded, it closes.
    pub probes: NonZeroU32,
}

impl Default for BreakerDocument {
    fn default() -> Self {
        use FailureKind::{Connect, Grpc, Invalid, Reset, Status, Timeout};
        BreakerDocument {
            enabled: true,
            failure_ratio: Percent(50),
            failures: vec![
                Connect,
                Reset,
                Timeout,
                Invalid,
                Status(502),
                Status(503),
                Status(504),
                Grpc(14),
            ],
            slow_ratio: None,
            slow_after: Span(1000),
            min_requests: NonZeroU32::new(20).unwrap_or(NonZeroU32::MIN),
            outage_after: Span(1000),
            window: Span(10_000),
            open_for: Span(5000),
            open_max: None,
            probes: NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// How many requests may be under way to the upstream, from being sent to their response head.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ConcurrencyDocument {
    /// Most requests under way.
    pub max: NonZeroU32,
    /// Whether the limit is learned from latency, between `min` and `max`.
    pub adaptive: bool,
    /// A learned limit does not go below this. Absent: 4, or `max` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<NonZeroU32>,
    /// Requests that may wait for a place. When it is full, the least important one is answered
    /// with 503 and `Retry-After`: low priority before high, what cannot be stored before what can.
    pub queue: u32,
    /// How long they may wait.
    pub queue_timeout: Span,
}

impl Default for ConcurrencyDocument {
    fn default() -> Self {
        ConcurrencyDocument {
            max: NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN),
            adaptive: false,
            min: None,
            queue: 512,
            queue_timeout: Span(1000),
        }
    }
}

/// How many fetches for the cache may be under way: a defence against requests with random query
/// strings, which always miss. Beyond it, 503 and `Retry-After`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct MissesDocument {
    /// In all.
    pub max: NonZeroU32,
    /// For one client. Absent: as many as in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_client: Option<NonZeroU32>,
    /// What tells clients apart.
    pub client: ClientBy,
}

impl Default for MissesDocument {
    fn default() -> Self {
        MissesDocument {
            max: NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN),
            per_client: None,
            client: ClientBy::Address,
        }
    }
}

/// Refreshes behind a response.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RefreshesDocument {
    /// Most under way. Beyond it what is stale stays so until a later request.
    pub max: NonZeroU32,
    /// They begin up to this much later, by chance, so that what expired together is not fetched
    /// together.
    pub jitter: Span,
}

impl Default for RefreshesDocument {
    fn default() -> Self {
        RefreshesDocument { max: NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN), jitter: Span(50) }
    }
}

/// A pause that doubles with each failure in a row; its length is drawn from its upper half.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BackoffDocument {
    /// After the first failure.
    pub first: Span,
    /// Longest pause. Absent: 10s, or `first` if that is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

impl Default for BackoffDocument {
    fn default() -> Self {
        BackoffDocument { first: Span(500), max: None }
    }
}
