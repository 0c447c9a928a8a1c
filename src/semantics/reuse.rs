//! May this stored response answer this request without the upstream (RFC 9111 §4, §5.2.1)?

use http::HeaderMap;
use http::header::{IF_MATCH, IF_UNMODIFIED_SINCE};

use crate::directives::RequestDirectives;
use crate::freshness::Lifetimes;
use crate::time::UnixMillis;

/// Why a stored response must be validated before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValidateReason {
    /// Its freshness lifetime is over, and no stale window applies.
    Stale,
    /// The response carries `no-cache` (RFC 9111 §5.2.2.4).
    NoCache,
    /// The request asked for it (`no-cache`, `max-age`, `min-fresh`).
    Request,
}

/// What may be done with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Serve it; it is fresh.
    Fresh,
    /// Serve it stale because the request allows that (`max-stale`).
    StaleAllowed,
    /// Serve it stale and refresh it behind the response (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Ask the upstream first.
    Validate(ValidateReason),
}

impl Lifetimes {
    /// What may be done with the stored response that these belong to. `soft_purged`: a soft purge
    /// has made it stale.
    pub fn reuse(&self, request: &RequestDirectives, now: UnixMillis, soft_purged: bool) -> Reuse {
        if request.no_cache {
            return Reuse::Validate(ValidateReason::Request);
        }
        if self.no_cache {
            return Reuse::Validate(ValidateReason::NoCache);
        }
        let fresh = self.is_fresh(now) && !soft_purged;
        if fresh {
            return self.fresh_reuse(request, now);
        }
        let stale_by = now.millis_since(self.fresh_until).max(0);
        if let Some(allowed) = request.max_stale
            && !self.forbids_stale
            && !soft_purged
            && stale_by <= i64::from(allowed) * 1000
        {
            return Reuse::StaleAllowed;
        }
        // A request that sets its own bound on age or freshness does not consent to a stale answer.
        let strict = request.max_age.is_some() || request.min_fresh.is_some();
        if self.has_window(self.stale_while_revalidate_until, now) && !strict {
            return Reuse::StaleWhileRevalidate;
        }
        Reuse::Validate(ValidateReason::Stale)
    }

    fn fresh_reuse(&self, request: &RequestDirectives, now: UnixMillis) -> Reuse {
        let left = self.fresh_until.millis_since(now);
        if request.min_fresh.is_some_and(|secs| left < i64::from(secs) * 1000) {
            return Reuse::Validate(ValidateReason::Request);
        }
        let age = self.age_millis(now);
        // RFC 8246 §2: a reload of an immutable response needs no validation while it is fresh.
        let too_old = request.max_age.is_some_and(|secs| age > i64::from(secs) * 1000)
            || request.max_age == Some(0);
        if too_old && !self.immutable {
            // max-stale widens max-age by the time it names (RFC 9111 §5.2.1.2).
            return Reuse::Validate(ValidateReason::Request);
        }
        Reuse::Fresh
    }

    /// Whether the stored response may be served for a failed upstream (RFC 5861 §4). `no-cache` in
    /// the request does not forbid it: the upstream was asked and gave no answer.
    pub fn may_serve_on_error(&self, request: &RequestDirectives, now: UnixMillis) -> bool {
        if self.no_cache {
            return false;
        }
        if self.has_window(self.stale_if_error_until, now) {
            return true;
        }
        let stale_by = now.millis_since(self.fresh_until).max(0);
        request
            .stale_if_error
            .is_some_and(|secs| !self.forbids_stale && stale_by < i64::from(secs) * 1000)
    }
}

/// Whether a request carries preconditions that only the origin may judge (RFC 9110 §13.2.1), so
/// that it has to be forwarded.
pub fn has_origin_preconditions(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::FreshnessSource;

    const T0: UnixMillis = UnixMillis(1_000_000);

    fn stored() -> Lifetimes {
        Lifetimes {
            born: T0,
            fresh_until: T0 + 10_000,
            stale_while_revalidate_until: T0 + 20_000,
            stale_if_error_until: T0 + 30_000,
            no_cache: false,
            invalid: false,
            forbids_stale: false,
            immutable: false,
            policy_alone: false,
            source: FreshnessSource::MaxAge,
        }
    }

    #[test]
    fn the_windows_follow_each_other() {
        let none = RequestDirectives::default();
        assert_eq!(stored().reuse(&none, T0 + 9_999, false), Reuse::Fresh);
        assert_eq!(stored().reuse(&none, T0 + 10_000, false), Reuse::StaleWhileRevalidate);
        assert_eq!(
            stored().reuse(&none, T0 + 20_000, false),
            Reuse::Validate(ValidateReason::Stale)
        );
        assert!(stored().may_serve_on_error(&none, T0 + 29_999));
        assert!(!stored().may_serve_on_error(&none, T0 + 30_000));
    }

    #[test]
    fn the_request_can_ask_for_more() {
        let now = T0 + 5_000;
        for request in [
            RequestDirectives { no_cache: true, ..Default::default() },
            RequestDirectives { max_age: Some(4), ..Default::default() },
            RequestDirectives { max_age: Some(0), ..Default::default() },
            RequestDirectives { min_fresh: Some(6), ..Default::default() },
        ] {
            assert_eq!(
                stored().reuse(&request, now, false),
                Reuse::Validate(ValidateReason::Request)
            );
        }
    }

    #[test]
    fn max_stale_stops_at_must_revalidate() {
        let request = RequestDirectives { max_stale: Some(60), ..Default::default() };
        let mut entry = stored();
        assert_eq!(entry.reuse(&request, T0 + 25_000, false), Reuse::StaleAllowed);
        entry.forbids_stale = true;
        entry.stale_while_revalidate_until = entry.fresh_until;
        assert_eq!(
            entry.reuse(&request, T0 + 25_000, false),
            Reuse::Validate(ValidateReason::Stale)
        );
    }

    #[test]
    fn an_immutable_response_survives_a_reload() {
        let entry = Lifetimes { immutable: true, ..stored() };
        let reload = RequestDirectives { max_age: Some(0), ..Default::default() };
        assert_eq!(entry.reuse(&reload, T0 + 1, false), Reuse::Fresh);
    }

    #[test]
    fn an_immutable_response_is_validated_once_it_is_stale() {
        let shut =
            Lifetimes { immutable: true, stale_while_revalidate_until: T0 + 10_000, ..stored() };
        let none = RequestDirectives::default();
        assert_eq!(shut.reuse(&none, T0 + 10_000, false), Reuse::Validate(ValidateReason::Stale));
        let no_cache = RequestDirectives { no_cache: true, ..none };
        assert_eq!(shut.reuse(&no_cache, T0, false), Reuse::Validate(ValidateReason::Request));
    }

    #[test]
    fn a_client_may_widen_stale_if_error_but_not_what_the_origin_forbids() {
        let request = RequestDirectives { stale_if_error: Some(60), ..Default::default() };
        let shut = Lifetimes { stale_if_error_until: T0 + 10_000, ..stored() };
        assert!(shut.may_serve_on_error(&request, T0 + 69_999));
        assert!(!shut.may_serve_on_error(&request, T0 + 70_000));
        let forbidden = Lifetimes { forbids_stale: true, ..shut };
        assert!(!forbidden.may_serve_on_error(&request, T0 + 10_001));
    }

    #[test]
    fn a_soft_purge_does_not_open_a_window_that_is_not_there() {
        let none = RequestDirectives::default();
        let shut = Lifetimes {
            stale_while_revalidate_until: T0 + 10_000,
            stale_if_error_until: T0 + 10_000,
            ..stored()
        };
        assert_eq!(shut.reuse(&none, T0 + 1, true), Reuse::Validate(ValidateReason::Stale));
        assert!(!shut.may_serve_on_error(&none, T0 + 1));
        assert_eq!(stored().reuse(&none, T0 + 1, true), Reuse::StaleWhileRevalidate);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_served_beyond_its_windows(
            now in 0i64..100_000,
            no_cache: bool,
            forbids_stale: bool,
            soft: bool,
        ) {
            let entry = Lifetimes { no_cache, forbids_stale, ..stored() };
            let verdict = entry.reuse(&RequestDirectives::default(), T0 + now, soft);
            if no_cache || now >= 20_000 {
                proptest::prop_assert!(matches!(verdict, Reuse::Validate(_)));
            }
            if soft {
                proptest::prop_assert_ne!(verdict, Reuse::Fresh);
            }
        }
    }
}
