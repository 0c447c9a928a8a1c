//! From a guard document to its rules. What a single value cannot show is checked here.

use std::num::NonZeroU32;
use std::time::Duration;

use outrigger_guard::{BackoffRules, BreakerRules, LimiterRules, MissRules};

use crate::error::PolicyError;
use crate::guard::{
    BreakerDocument, CallerDeadlineDocument, ConcurrencyPolicy, Deadlines, FailureSet,
    GuardDocument, GuardRules, MissPolicy, Own, RetryPolicy,
};
use crate::values::Span;

/// Bounds where a document says none.
const OPEN_MAX: Span = Span(60_000);
const BACKOFF_MAX: Span = Span(10_000);
const LIMIT_MIN: u32 = 4;

/// A wrong combination: the field below the guard, what is wrong, and how to mend it.
type Wrong = (&'static str, String, &'static str);

/// Checks a guard; `place` is its path in the document.
pub(crate) fn check(
    source: &str,
    text: &str,
    place: &str,
    guard: &GuardDocument,
) -> Result<(), PolicyError> {
    let found = wrong_timeouts(guard)
        .or_else(|| wrong_breaker(guard))
        .or_else(|| wrong_limits(guard))
        .or_else(|| wrong_retries(guard));
    match found {
        None => Ok(()),
        Some((field, reason, fix)) => {
            let path = format!("{place}.{field}");
            Err(PolicyError::at_path(source, text, &path, reason).with_fix(fix))
        }
    }
}

fn wrong_timeouts(guard: &GuardDocument) -> Option<Wrong> {
    let all = [
        ("timeout", guard.timeout),
        ("connectTimeout", guard.connect_timeout),
        ("tlsTimeout", guard.tls_timeout),
        ("firstByteTimeout", guard.first_byte_timeout),
        ("idleTimeout", guard.idle_timeout),
    ];
    let (field, _) = all.into_iter().find(|(_, span)| *span == Some(Span(0)))?;
    Some((field, "no request can be answered in 0ms".to_owned(), "leave it out for no limit here"))
}

fn wrong_breaker(guard: &GuardDocument) -> Option<Wrong> {
    let breaker = guard.breaker.as_ref()?;
    let zero = |field, span: Span| {
        (span.0 == 0)
            .then(|| (field, "0ms is no time".to_owned(), "write a longer time, such as 5s"))
    };
    if let Some(wrong) = zero("breaker.window", breaker.window)
        .or_else(|| zero("breaker.openFor", breaker.open_for))
        .or_else(|| zero("breaker.slowAfter", breaker.slow_after))
    {
        return Some(wrong);
    }
    if breaker.failure_ratio.0 == 0 {
        let reason = "0% would open it at the first failure".to_owned();
        return Some(("breaker.failureRatio", reason, "write 1% to 100%, or enabled: false"));
    }
    if breaker.slow_ratio.is_some_and(|ratio| ratio.0 == 0) {
        let reason = "0% would open it at the first slow response".to_owned();
        return Some(("breaker.slowRatio", reason, "write 1% to 100%, or leave it out"));
    }
    if let Some(max) = breaker.open_max.filter(|max| *max < breaker.open_for) {
        let reason = format!("{max} is shorter than openFor, {}", breaker.open_for);
        return Some(("breaker.openMax", reason, "raise openMax or lower openFor"));
    }
    None
}

fn wrong_limits(guard: &GuardDocument) -> Option<Wrong> {
    if let Some(limit) = &guard.concurrency
        && let Some(min) = limit.min.filter(|min| *min > limit.max)
    {
        let reason = format!("{min} is more than max, {}", limit.max);
        return Some(("concurrency.min", reason, "raise max or lower min"));
    }
    if let Some(misses) = &guard.misses
        && let Some(each) = misses.per_client.filter(|each| *each > misses.max)
    {
        let reason = format!("{each} is more than max, {}", misses.max);
        return Some(("misses.perClient", reason, "raise max or lower perClient"));
    }
    if let Some(backoff) = &guard.backoff
        && let Some(max) = backoff.max.filter(|max| *max < backoff.first)
    {
        let reason = format!("{max} is shorter than first, {}", backoff.first);
        return Some(("backoff.max", reason, "raise max or lower first"));
    }
    None
}

fn wrong_retries(guard: &GuardDocument) -> Option<Wrong> {
    let retries = guard.retries.as_ref()?;
    let grpc = FailureSet::of(&retries.on).looks_at_grpc();
    grpc.then(|| {
        let reason = "gRPC calls are POST requests, which are never sent again".to_owned();
        ("retries.on", reason, "leave the gRPC statuses out; the caller may retry by itself")
    })
}

/// The rules of a route: what it says itself, and where it says nothing, what the document says.
pub(crate) fn rules(route: &GuardDocument, shared: &GuardDocument) -> GuardRules {
    let guard = route.or(shared);
    let concurrency = guard.concurrency.unwrap_or_default();
    let misses = guard.misses.unwrap_or_default();
    let refreshes = guard.refreshes.unwrap_or_default();
    let backoff = guard.backoff.unwrap_or_default();
    let breaker = guard.breaker.unwrap_or_default();
    let ms = |span: Option<Span>| span.map(|span| span.0);
    GuardRules {
        deadlines: Deadlines {
            connect_ms: ms(guard.connect_timeout),
            tls_ms: ms(guard.tls_timeout),
            total_ms: ms(guard.timeout),
            first_byte_ms: ms(guard.first_byte_timeout),
            idle_ms: ms(guard.idle_timeout),
        },
        honor_caller: guard.caller_deadline.unwrap_or_default() == CallerDeadlineDocument::Honor,
        priority: guard.priority.unwrap_or_default(),
        retries: guard.retries.filter(|retries| retries.budget.0 > 0).map(|retries| RetryPolicy {
            percent: retries.budget.0,
            max: retries.max.get(),
            on: FailureSet::of(&retries.on),
            backoff: duration(retries.backoff),
        }),
        failures: FailureSet::of(&breaker.failures),
        slow_after: duration(breaker.slow_after),
        breaker: breaker.enabled.then(|| breaker_rules(&breaker)),
        concurrency: ConcurrencyPolicy {
            rules: LimiterRules {
                max: concurrency.max.get(),
                min: concurrency.min.map_or(LIMIT_MIN, NonZeroU32::get).min(concurrency.max.get()),
                adaptive: concurrency.adaptive,
                queue_max: concurrency.queue,
            },
            queue_for: duration(concurrency.queue_timeout),
        },
        misses: MissPolicy {
            rules: MissRules {
                max: misses.max.get(),
                client_max: misses.per_client.map(NonZeroU32::get),
            },
            client: misses.client.header(),
        },
        refreshes_max: refreshes.max.get(),
        refresh_jitter: duration(refreshes.jitter),
        backoff: BackoffRules {
            first: duration(backoff.first),
            max: duration(backoff.max.unwrap_or(BACKOFF_MAX.max(backoff.first))),
        },
        own: Own {
            breaker: route.breaker.is_some(),
            retries: route.retries.is_some(),
            concurrency: route.concurrency.is_some(),
            misses: route.misses.is_some(),
            refreshes: route.refreshes.is_some(),
        },
    }
}

fn breaker_rules(document: &BreakerDocument) -> BreakerRules {
    BreakerRules {
        failure_percent: Some(document.failure_ratio.0),
        slow_percent: document.slow_ratio.map(|ratio| ratio.0),
        requests_min: document.min_requests.get(),
        consecutive: Some(document.min_requests.get()),
        consecutive_for: duration(document.outage_after),
        window: duration(document.window),
        open_for: duration(document.open_for),
        open_max: duration(document.open_max.unwrap_or(OPEN_MAX.max(document.open_for))),
        probes: document.probes.get(),
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_millis(span.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use crate::compile::check as check_document;
    use crate::error::parse_yaml;

    fn guard(yaml: &str) -> GuardDocument {
        let document: Document = parse_yaml("p", &format!("guard: {yaml}")).unwrap();
        document.guard
    }

    #[test]
    fn a_route_replaces_what_it_names_and_has_that_for_itself() {
        let shared = guard("{timeout: 9s, breaker: {openFor: 1s}, retries: {budget: 10%}}");
        let rules = rules(&guard("{breaker: {minRequests: 7}}"), &shared);
        assert_eq!(rules.deadlines.total_ms, Some(9000));
        let breaker = rules.breaker.unwrap();
        assert_eq!((breaker.requests_min, breaker.open_for), (7, Duration::from_secs(5)));
        assert_eq!(rules.retries.unwrap().percent, 10);
        assert!(rules.own.breaker && !rules.own.retries);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_place_and_the_fix() {
        for (wrong, place, fix) in [
            ("breaker: {openFor: 2m, openMax: 1m}", "guard.breaker.openMax", "raise openMax"),
            ("concurrency: {max: 2, min: 3}", "guard.concurrency.min", "lower min"),
            ("misses: {max: 2, perClient: 3}", "guard.misses.perClient", "raise max"),
            ("timeout: 0ms", "guard.timeout", "leave it out"),
            ("retries:\n      on: [grpc-unavailable]", "guard.retries.on", "caller may retry"),
        ] {
            let text = format!("routes:\n  - name: a\n    guard:\n     {wrong}\n");
            let error = check_document("p.yaml", &text).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(fix), "{error}");
            let text = format!("guard:\n     {wrong}\n");
            assert!(check_document("p.yaml", &text).is_err(), "{text}");
        }
    }
}
