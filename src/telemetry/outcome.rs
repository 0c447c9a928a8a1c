//! How a request ended.

/// The outcome of a request. Closed; the strings are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered from the store, fresh.
    Hit,
    /// Answered from the tier that pods share, fresh.
    RedisHit,
    /// Answered stale because the request allowed it (`max-stale`).
    StaleAllowed,
    /// Answered stale while a refresh runs behind (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Answered stale because the upstream failed (RFC 5861 §4).
    StaleIfError,
    /// Answered stale without asking the upstream, since its circuit breaker is open.
    StaleBreakerOpen,
    /// Answered stale without asking the upstream, since validating it failed a moment ago.
    StaleBackOff,
    /// Answered stale, since a limit on requests to the upstream is used up.
    StaleOverload,
    /// The upstream confirmed the stored response with a 304.
    Revalidated,
    /// Fetched from the upstream through the cache.
    Miss,
    /// Waited for another request's fetch and shared it.
    Collapsed,
    /// Passed through: known not to be cacheable.
    Pass,
    /// Passed through: the request or the route forbids looking into the store.
    Bypass,
    /// A connection was handed over after a 101.
    Upgraded,
    /// `only-if-cached` and nothing stored.
    OnlyIfCached,
    /// The request was refused as malformed or not allowed.
    Rejected,
    /// The request came back to the instance that it had already passed.
    Loop,
    /// A write was not made, since the other pods could not be told of it.
    Unwritten,
    /// The upstream could not be reached or broke off.
    UpstreamError,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// Not sent: the circuit breaker is open.
    BreakerOpen,
    /// Not sent: a limit on requests to the upstream is used up.
    Overload,
}

impl Outcome {
    /// All outcomes, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 22] = [
        Outcome::Hit,
        Outcome::RedisHit,
        Outcome::StaleAllowed,
        Outcome::StaleWhileRevalidate,
        Outcome::StaleIfError,
        Outcome::StaleBreakerOpen,
        Outcome::StaleBackOff,
        Outcome::StaleOverload,
        Outcome::Revalidated,
        Outcome::Miss,
        Outcome::Collapsed,
        Outcome::Pass,
        Outcome::Bypass,
        Outcome::Upgraded,
        Outcome::OnlyIfCached,
        Outcome::Rejected,
        Outcome::Loop,
        Outcome::Unwritten,
        Outcome::UpstreamError,
        Outcome::UpstreamTimeout,
        Outcome::BreakerOpen,
        Outcome::Overload,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::RedisHit => "redis-hit",
            Self::StaleAllowed => "stale-allowed",
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StaleIfError => "stale-if-error",
            Self::StaleBreakerOpen => "stale-breaker-open",
            Self::StaleBackOff => "stale-back-off",
            Self::StaleOverload => "stale-overload",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Bypass => "bypass",
            Self::Upgraded => "upgraded",
            Self::OnlyIfCached => "only-if-cached",
            Self::Rejected => "rejected",
            Self::Loop => "loop",
            Self::Unwritten => "unwritten",
            Self::UpstreamError => "upstream-error",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::BreakerOpen => "breaker-open",
            Self::Overload => "overload",
        }
    }

    /// Position in [`Outcome::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the upstream was spared.
    pub fn spared_upstream(self) -> bool {
        matches!(
            self,
            Self::Hit
                | Self::RedisHit
                | Self::StaleAllowed
                | Self::StaleWhileRevalidate
                | Self::StaleBreakerOpen
                | Self::StaleBackOff
                | Self::StaleOverload
                | Self::Collapsed
        )
    }

    /// Whether a stale response stood in for the upstream (RFC 5861 §4).
    pub fn stood_in(self) -> bool {
        matches!(
            self,
            Self::StaleIfError | Self::StaleBreakerOpen | Self::StaleBackOff | Self::StaleOverload
        )
    }

    /// Which tier answered.
    pub fn tier(self) -> &'static str {
        match self {
            Self::Hit
            | Self::StaleAllowed
            | Self::StaleWhileRevalidate
            | Self::StaleIfError
            | Self::StaleBreakerOpen
            | Self::StaleBackOff
            | Self::StaleOverload
            | Self::Revalidated => "memory",
            Self::RedisHit => "redis",
            Self::Miss | Self::Collapsed | Self::Pass | Self::Bypass | Self::Upgraded => "upstream",
            _ => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indexes_agree() {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), at);
            assert_eq!(Outcome::ALL.iter().filter(|o| o.as_str() == outcome.as_str()).count(), 1);
        }
    }
}
