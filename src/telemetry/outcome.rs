//! How a request ended, and who answered it.
//!
//! This is the one list of outcomes. How an outcome is chosen is not known here.

use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The outcome of a request. Closed; the names in kebab-case are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
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
    /// Waited for the fetch of another request and shared its response.
    Collapsed,
    /// Passed through: the key is remembered as not cacheable (hit-for-miss).
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
    /// Answered here, since `Max-Forwards` allows no further hop (RFC 9110 §7.6.2).
    LastHop,
    /// A write was not made, since it could not be announced to the other pods.
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
    pub const ALL: [Outcome; Outcome::COUNT] = match Outcome::VARIANTS.first_chunk() {
        Some(all) => *all,
        // Both are derived from the same variants; checked while compiling.
        None => unreachable!(),
    };

    /// The stable name in metrics, access log, spans and `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Position in [`Outcome::ALL`], for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the request was answered without an upstream request of its own: from the store, or
    /// by a fetch that it shared. `/stats` counts these as `sparedUpstream`.
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

    /// Whether a stale response was served because the upstream failed or could not be asked
    /// (RFC 5861 §4).
    pub fn is_stale_if_error(self) -> bool {
        matches!(
            self,
            Self::StaleIfError | Self::StaleBreakerOpen | Self::StaleBackOff | Self::StaleOverload
        )
    }

    /// Who answered a request with this outcome.
    pub fn answered_by(self) -> AnsweredBy {
        match self {
            Self::Hit
            | Self::StaleAllowed
            | Self::StaleWhileRevalidate
            | Self::StaleIfError
            | Self::StaleBreakerOpen
            | Self::StaleBackOff
            | Self::StaleOverload
            | Self::Revalidated => AnsweredBy::Memory,
            Self::RedisHit => AnsweredBy::Redis,
            Self::Miss | Self::Collapsed | Self::Pass | Self::Bypass | Self::Upgraded => {
                AnsweredBy::Upstream
            }
            Self::OnlyIfCached
            | Self::Rejected
            | Self::Loop
            | Self::LastHop
            | Self::Unwritten
            | Self::UpstreamError
            | Self::UpstreamTimeout
            | Self::BreakerOpen
            | Self::Overload => AnsweredBy::None,
        }
    }
}

/// Who answered a request; `tier` in the access log, `outrigger.tier` on spans. The lower-case names
/// are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum AnsweredBy {
    /// The store of this process. A stored response that the upstream has confirmed counts too.
    Memory,
    /// The tier that pods share.
    Redis,
    /// The upstream, for this request or for one that it was collapsed with.
    Upstream,
    /// The proxy itself, mostly with an error.
    None,
}

impl AnsweredBy {
    /// The stable name in the access log and on spans.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_indexes_agree() {
        let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(
            names,
            [
                "hit",
                "redis-hit",
                "stale-allowed",
                "stale-while-revalidate",
                "stale-if-error",
                "stale-breaker-open",
                "stale-back-off",
                "stale-overload",
                "revalidated",
                "miss",
                "collapsed",
                "pass",
                "bypass",
                "upgraded",
                "only-if-cached",
                "rejected",
                "loop",
                "last-hop",
                "unwritten",
                "upstream-error",
                "upstream-timeout",
                "breaker-open",
                "overload",
            ]
        );
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), at);
            assert_eq!(Outcome::ALL.iter().filter(|o| o.as_str() == outcome.as_str()).count(), 1);
        }
        let names: Vec<_> = AnsweredBy::VARIANTS.iter().map(|by| by.as_str()).collect();
        assert_eq!(names, ["memory", "redis", "upstream", "none"]);
    }
}
