//! How old a response is and how long it stays fresh (RFC 9111 §4.2).
//!
//! The result is a set of points in time, fixed when the response is stored, so that a hit
//! compares integers. Lifetimes given by the origin come first; what an operator's policy adds
//! only fills gaps, unless it says `override`.

use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};
use http::{HeaderValue, StatusCode};

use crate::directives::{DELTA_SECONDS_MAX, ResponseDirectives, delta_seconds};
use crate::fields;
use crate::rules::StoreRules;
use crate::time::{UnixMillis, parse_http_date};

/// Where a freshness lifetime came from. The names in kebab-case are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum FreshnessSource {
    /// Policy replaces the origin's lifetime (`ttl.override`).
    PolicyOverride,
    /// The origin's `s-maxage` (RFC 9111 §5.2.2.10).
    SMaxage,
    /// The origin's `max-age` (RFC 9111 §5.2.2.1).
    MaxAge,
    /// The origin's `Expires`, less its `Date` (RFC 9111 §5.3).
    Expires,
    /// Policy gives this status a lifetime (`ttl.status`).
    PolicyStatus,
    /// Policy gives successful responses a lifetime (`ttl.default`).
    PolicyDefault,
    /// A share of the time since `Last-Modified` (RFC 9111 §4.2.2).
    Heuristic,
    /// Nothing gives a lifetime; the response is stale at once.
    None,
}

impl FreshnessSource {
    /// The stable name used in metrics, logs and `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// When a request went out and its response came in.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When the request was sent to the upstream.
    pub requested_at: UnixMillis,
    /// When the response head arrived.
    pub responded_at: UnixMillis,
}

/// All points in time that reuse of a stored response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// When the response had age zero; `now` less this is the current age (RFC 9111 §4.2.3).
    pub born: UnixMillis,
    /// Fresh before this point.
    pub fresh_until: UnixMillis,
    /// May be served stale while a refresh runs, before this point (RFC 5861 §3).
    pub stale_while_revalidate_until: UnixMillis,
    /// May be served stale when the upstream fails, before this point (RFC 5861 §4).
    pub stale_if_error_until: UnixMillis,
    /// `no-cache`: every use needs validation.
    pub no_cache: bool,
    /// A later answer of the upstream has ended its use (`supersede`); `no_cache` is set as well.
    pub invalid: bool,
    /// The response may not be served stale on the cache's own decision (RFC 9111 §4.2.4).
    pub forbids_stale: bool,
    /// RFC 8246: a reload does not need validation while fresh.
    pub immutable: bool,
    /// Only policy gave the lifetime, and the origin says nothing that allows sharing: the response
    /// is not for requests with cookies that may select the response of one user.
    pub policy_alone: bool,
    /// What gave the freshness lifetime.
    pub source: FreshnessSource,
}

impl Lifetimes {
    /// Current age in milliseconds, never negative.
    pub fn age_millis(&self, now: UnixMillis) -> i64 {
        now.millis_since(self.born).max(0)
    }

    /// Current age in whole seconds, as in the `Age` field (RFC 9111 §5.1).
    pub fn age_secs(&self, now: UnixMillis) -> u64 {
        (self.age_millis(now) / 1000).unsigned_abs()
    }

    /// Seconds of freshness left; negative once stale (the `ttl` of RFC 9211 §2.4).
    pub fn ttl_secs(&self, now: UnixMillis) -> i64 {
        self.fresh_until.millis_since(now).div_euclid(1000)
    }

    /// Whether the response is fresh at `now`.
    pub fn is_fresh(&self, now: UnixMillis) -> bool {
        now < self.fresh_until
    }

    /// The point before which the response can be served without asking the upstream.
    pub fn usable_until(&self) -> UnixMillis {
        self.fresh_until.max(self.stale_while_revalidate_until).max(self.stale_if_error_until)
    }

    /// Whether a stale window that ends at `until` exists and has not ended. A response that is
    /// stale early, by a soft purge, has only the windows that it would have had later.
    pub fn has_window(&self, until: UnixMillis, now: UnixMillis) -> bool {
        until > self.fresh_until && now < until
    }
}

/// The lifetimes of a response at the moment it arrived. `targeted` says that a targeted field gave the
/// directives, so that `Expires` does not count (RFC 9213 §2.2).
pub fn lifetimes(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    targeted: bool,
    exchange: Exchange,
    rules: &StoreRules,
) -> Lifetimes {
    let born = exchange.responded_at - initial_age_millis(headers, exchange, rules);
    let stated = stated_lifetime(headers, directives, targeted, exchange);
    let (mut lifetime, source) =
        freshness_lifetime(status, headers, directives, stated, exchange, rules);
    let stated = stated.is_some();
    if let Some(max) = rules.ttl_max_ms {
        lifetime = lifetime.min(max);
    }
    let fresh_until = born + lifetime;
    // A window in the same response overrides the proxy-revalidate that s-maxage implies; a window
    // from policy does not.
    let hard =
        directives.must_revalidate || directives.proxy_revalidate || directives.no_cache.is_whole();
    let window = |own: Option<u32>, policy: Option<i64>| match own {
        Some(secs) if !hard => i64::from(secs) * 1000,
        // A stated lifetime of zero says that every use needs the origin.
        None if !(directives.forbids_stale() || stated && lifetime == 0) => policy.unwrap_or(0),
        _ => 0,
    };
    Lifetimes {
        born,
        fresh_until,
        stale_while_revalidate_until: fresh_until
            + window(directives.stale_while_revalidate, rules.stale_while_revalidate_ms),
        stale_if_error_until: fresh_until
            + window(directives.stale_if_error, rules.stale_if_error_ms),
        no_cache: directives.no_cache.is_whole(),
        invalid: false,
        forbids_stale: directives.forbids_stale(),
        immutable: directives.immutable,
        policy_alone: !directives.public && !stated && source != FreshnessSource::None,
        source,
    }
}

/// The corrected initial age of RFC 9111 §4.2.3, in milliseconds.
fn initial_age_millis(headers: &HeaderMap, exchange: Exchange, rules: &StoreRules) -> i64 {
    let delay = exchange.responded_at.millis_since(exchange.requested_at).max(0);
    let corrected = age_value(headers, rules).saturating_add(delay);
    // Date has whole seconds, so the clock is cut to seconds as well: otherwise each response
    // would seem up to a second old.
    let apparent = date_value(headers, exchange.responded_at)
        .map_or(0, |date| (exchange.responded_at.as_secs() - date.as_secs()).max(0) * 1000);
    corrected.max(apparent)
}

/// `Age` in milliseconds: of several members or lines the first counts (RFC 9111 §5.1). What is no
/// number is ignored, or, by policy, taken as very old.
fn age_value(headers: &HeaderMap, rules: &StoreRules) -> i64 {
    let unreadable = if rules.invalid_age_is_stale { DELTA_SECONDS_MAX } else { 0 };
    let Some(line) = headers.get(AGE) else { return 0 };
    let first = line.as_bytes().split(|b| *b == b',').next().unwrap_or_default();
    i64::from(delta_seconds(first.trim_ascii()).unwrap_or(unreadable)) * 1000
}

fn date_value(headers: &HeaderMap, now: UnixMillis) -> Option<UnixMillis> {
    fields::single(headers, &DATE).and_then(|value| parse_http_date(value.as_bytes(), now))
}

fn freshness_lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    stated: Option<(i64, FreshnessSource)>,
    exchange: Exchange,
    rules: &StoreRules,
) -> (i64, FreshnessSource) {
    if let Some(ms) = rules.ttl_override_ms
        && (is_good(status) || stated.is_some())
    {
        return (ms, FreshnessSource::PolicyOverride);
    }
    if let Some(found) = stated {
        return found;
    }
    if let Some(ms) = rules.ttl_for_status(status.as_u16()) {
        return (ms, FreshnessSource::PolicyStatus);
    }
    if let Some(ms) = rules.ttl_default_ms
        && is_good(status)
    {
        return (ms, FreshnessSource::PolicyDefault);
    }
    let date = date_value(headers, exchange.responded_at).unwrap_or(exchange.responded_at);
    match heuristic(status, headers, directives, date, rules) {
        Some(ms) => (ms, FreshnessSource::Heuristic),
        None => (0, FreshnessSource::None),
    }
}

fn stated_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    targeted: bool,
    exchange: Exchange,
) -> Option<(i64, FreshnessSource)> {
    if let Some(secs) = directives.s_maxage {
        return Some((i64::from(secs) * 1000, FreshnessSource::SMaxage));
    }
    if let Some(secs) = directives.max_age {
        return Some((i64::from(secs) * 1000, FreshnessSource::MaxAge));
    }
    if targeted || !headers.contains_key(EXPIRES) {
        return None;
    }
    let date = date_value(headers, exchange.responded_at).unwrap_or(exchange.responded_at);
    Some((expires_lifetime(headers, date, exchange.responded_at), FreshnessSource::Expires))
}

/// An `Expires` that is repeated or cannot be read lies in the past (RFC 9111 §5.3).
fn expires_lifetime(headers: &HeaderMap, date: UnixMillis, now: UnixMillis) -> i64 {
    fields::single(headers, &EXPIRES)
        .map(HeaderValue::as_bytes)
        .and_then(|text| parse_http_date(text, now))
        .map_or(0, |expires| expires.millis_since(date).max(0))
}

/// Statuses that a policy's `ttl.default` is for, where the origin says nothing. Errors are
/// never among them: negative caching takes an explicit lifetime or `ttl.status`.
fn is_good(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308)
}

/// Statuses that may be reused without explicit freshness (RFC 9110 §15.1).
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date: UnixMillis,
    rules: &StoreRules,
) -> Option<i64> {
    if rules.heuristic_percent == 0 {
        return None;
    }
    if !is_heuristically_cacheable(status) && !directives.public {
        return None;
    }
    let modified = fields::single(headers, &LAST_MODIFIED)
        .and_then(|value| parse_http_date(value.as_bytes(), date))?;
    let since = date.millis_since(modified).max(0);
    let share = since / 100 * i64::from(rules.heuristic_percent);
    Some(share.min(rules.heuristic_max_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CACHE_CONTROL, HeaderName};
    use strum::VariantArray;

    const T0: UnixMillis = UnixMillis(1_790_000_000_400);

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn of(map: &HeaderMap, rules: &StoreRules) -> Lifetimes {
        let (directives, targeted) =
            crate::targeted::effective_directives(map, &crate::targeted::default_targets());
        let exchange = Exchange { requested_at: T0 - 200, responded_at: T0 };
        lifetimes(StatusCode::OK, map, &directives, targeted, exchange, rules)
    }

    #[test]
    fn names_are_stable() {
        let names: Vec<_> =
            FreshnessSource::VARIANTS.iter().map(|source| source.as_str()).collect();
        assert_eq!(
            names,
            [
                "policy-override",
                "s-maxage",
                "max-age",
                "expires",
                "policy-status",
                "policy-default",
                "heuristic",
                "none",
            ]
        );
    }

    #[test]
    fn age_counts_what_upstream_caches_and_the_way_back_took() {
        let map = headers(&[(CACHE_CONTROL, "max-age=60"), (AGE, "10, 99")]);
        let found = of(&map, &StoreRules::default());
        assert_eq!(found.age_millis(T0), 10_200);
        assert_eq!(found.fresh_until, T0 - 10_200 + 60_000);
        assert_eq!(found.ttl_secs(T0), 49);
    }

    #[test]
    fn age_that_is_no_number_is_ignored() {
        for age in ["abc", "-5", "7200.0", ""] {
            let map = headers(&[(CACHE_CONTROL, "max-age=60"), (AGE, age)]);
            assert_eq!(of(&map, &StoreRules::default()).age_secs(T0), 0, "{age}");
        }
    }

    #[test]
    fn expires_counts_from_date_and_not_from_our_clock() {
        let date = (T0 + 10_000).to_http_date();
        let expires = (T0 + 20_000).to_http_date();
        let map = headers(&[
            (DATE, date.to_str().unwrap()),
            (EXPIRES, expires.to_str().unwrap()),
            (AGE, "15"),
        ]);
        assert!(!of(&map, &StoreRules::default()).is_fresh(T0));
    }

    #[test]
    fn of_the_lifetimes_that_are_stated_the_most_specific_counts() {
        let expires = (T0 + 20_000).to_http_date();
        let expires = (EXPIRES, expires.to_str().unwrap());
        let rules = StoreRules { heuristic_percent: 10, ..StoreRules::default() };
        let modified = (LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT");
        for (control, life, source) in [
            (Some("max-age=60, s-maxage=90"), 90, FreshnessSource::SMaxage),
            (Some("max-age=60"), 60, FreshnessSource::MaxAge),
            (Some("max-age=soon"), 0, FreshnessSource::MaxAge),
            (Some("public"), 20, FreshnessSource::Expires),
            (None, 20, FreshnessSource::Expires),
        ] {
            let mut map = headers(&[expires.clone(), modified.clone()]);
            if let Some(control) = control {
                map.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            }
            let found = of(&map, &rules);
            assert_eq!(found.source, source, "{control:?}");
            // Without Date the lifetime counts from the arrival, and dates have whole seconds.
            let lived = (found.fresh_until.millis_since(T0) + 600) / 1000;
            assert_eq!(lived, life, "{control:?}");
        }
    }

    #[test]
    fn an_expiry_that_is_repeated_or_no_date_is_over() {
        for lines in [&["0"][..], &["-1"], &["soon"], &["Thu, 18 Aug 2050 02:01:18 CET"]] {
            let pairs: Vec<_> = lines.iter().map(|line| (EXPIRES, *line)).collect();
            let found = of(&headers(&pairs), &StoreRules::default());
            assert_eq!(found.source, FreshnessSource::Expires, "{lines:?}");
            assert!(!found.is_fresh(T0), "{lines:?}");
        }
        let twice = (EXPIRES, "Thu, 18 Aug 2050 02:01:18 GMT");
        assert!(!of(&headers(&[twice.clone(), twice]), &StoreRules::default()).is_fresh(T0));
    }

    #[test]
    fn a_heuristic_lifetime_is_a_bounded_share_where_nothing_is_stated() {
        let rules = StoreRules {
            heuristic_percent: 10,
            heuristic_max_ms: 3_600_000,
            ..StoreRules::default()
        };
        let modified = |ago: i64| (T0 - ago).to_http_date();
        let with = |ago: i64, status: u16, control: &'static str| {
            let mut map = headers(&[(LAST_MODIFIED, modified(ago).to_str().unwrap())]);
            map.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            let (directives, targeted) =
                crate::targeted::effective_directives(&map, &rules.targets);
            let exchange = Exchange { requested_at: T0, responded_at: T0 };
            let status = StatusCode::from_u16(status).unwrap();
            let found = lifetimes(status, &map, &directives, targeted, exchange, &rules);
            (found.source, found.fresh_until.millis_since(found.born) / 1000)
        };
        assert_eq!(with(600_000, 200, ""), (FreshnessSource::Heuristic, 60));
        assert_eq!(with(600_000_000, 200, ""), (FreshnessSource::Heuristic, 3600));
        assert_eq!(with(-600_000, 200, ""), (FreshnessSource::Heuristic, 0));
        // Statuses without heuristics, unless the response is public (RFC 9111 §4.2.2).
        assert_eq!(with(600_000, 302, ""), (FreshnessSource::None, 0));
        assert_eq!(with(600_000, 302, "public"), (FreshnessSource::Heuristic, 60));
        let without = of(&HeaderMap::new(), &rules);
        assert_eq!(without.source, FreshnessSource::None);
    }

    #[test]
    fn must_revalidate_closes_every_stale_window() {
        let rules = StoreRules { stale_if_error_ms: Some(60_000), ..StoreRules::default() };
        let open = of(&headers(&[(CACHE_CONTROL, "max-age=1")]), &rules);
        assert_eq!(open.stale_if_error_until, open.fresh_until + 60_000);
        for value in
            ["max-age=1, must-revalidate, stale-if-error=9", "s-maxage=1", "max-age=1, no-cache"]
        {
            let shut = of(&headers(&[(CACHE_CONTROL, value)]), &rules);
            assert_eq!(shut.stale_if_error_until, shut.fresh_until, "{value}");
        }
    }

    #[test]
    fn policy_fills_gaps_and_caps() {
        let rules = StoreRules {
            ttl_default_ms: Some(30_000),
            ttl_max_ms: Some(40_000),
            ..StoreRules::default()
        };
        assert_eq!(of(&HeaderMap::new(), &rules).source, FreshnessSource::PolicyDefault);
        let capped = of(&headers(&[(CACHE_CONTROL, "max-age=900")]), &rules);
        assert_eq!(capped.fresh_until.millis_since(capped.born), 40_000);
    }

    proptest::proptest! {
        #[test]
        fn a_response_never_gets_younger(age in 0u32..100_000, life in 0u32..100_000, later in 0i64..10_000_000) {
            let map = headers(&[
                (CACHE_CONTROL, &format!("max-age={life}")),
                (AGE, &age.to_string()),
            ]);
            let found = of(&map, &StoreRules::default());
            proptest::prop_assert!(found.age_millis(T0 + later) >= i64::from(age) * 1000);
            proptest::prop_assert_eq!(
                found.is_fresh(T0 + later),
                found.age_millis(T0 + later) < i64::from(life) * 1000
            );
            proptest::prop_assert!(found.usable_until() >= found.fresh_until);
        }
    }
}
