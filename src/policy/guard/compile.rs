//! Checks that need more than one value of a guard document, and the rules that are compiled from it.

use std::num::NonZeroU32;
use std::time::Duration;

use outrigger_diagnostic::Diagnostic;
use outrigger_guard::{BackoffRules, BreakerRules, LimiterRules, MissRules};

use crate::guard::{
    BreakerDocument, CallerDeadlineDocument, ConcurrencyPolicy, DeadlineRules, FailureSet,
    GuardDocument, GuardRules, MissPolicy, Own, RetryPolicy,
};
use crate::values::Span;

// Bounds that apply where a document has none.
const OPEN_MAX: Span = Span(60_000);
const BACKOFF_MAX: Span = Span(10_000);
const LIMIT_MIN: u32 = 4;

/// Checks a guard document. Diagnostics name the field relative to it.
pub(crate) fn check(guard: &GuardDocument) -> Result<(), Diagnostic> {
    check_timeouts(guard)?;
    guard.breaker.as_ref().map_or(Ok(()), check_breaker)?;
    check_limits(guard)?;
    check_retries(guard)
}

/// The refusal of one field, or of its combination with another.
fn wrong(field: &str, reason: impl Into<String>, fix: &str) -> Result<(), Diagnostic> {
    Err(Diagnostic::new(reason).at(field).fix(fix))
}

fn check_timeouts(guard: &GuardDocument) -> Result<(), Diagnostic> {
    for (field, span) in [
        ("timeout", guard.timeout),
        ("connectTimeout", guard.connect_timeout),
        ("tlsTimeout", guard.tls_timeout),
        ("firstByteTimeout", guard.first_byte_timeout),
        ("idleTimeout", guard.idle_timeout),
    ] {
        if span == Some(Span(0)) {
            let reason = "no request can be answered in 0ms";
            return wrong(field, reason, "leave it out for no limit here");
        }
    }
    Ok(())
}

fn check_breaker(breaker: &BreakerDocument) -> Result<(), Diagnostic> {
    for (field, span) in [
        ("breaker.window", breaker.window),
        ("breaker.openFor", breaker.open_for),
        ("breaker.slowAfter", breaker.slow_after),
    ] {
        if span == Span(0) {
            return wrong(field, "0ms is no time", "write a longer time, such as 5s");
        }
    }
    if breaker.failure_ratio.0 == 0 {
        let reason = "0% would open it at the first failure";
        return wrong("breaker.failureRatio", reason, "write 1% to 100%, or enabled: false");
    }
    if breaker.slow_ratio.is_some_and(|ratio| ratio.0 == 0) {
        let reason = "0% would open it at the first slow response";
        return wrong("breaker.slowRatio", reason, "write 1% to 100%, or leave it out");
    }
    if let Some(max) = breaker.open_max.filter(|max| *max < breaker.open_for) {
        let reason = format!("{max} is shorter than openFor, {}", breaker.open_for);
        return wrong("breaker.openMax", reason, "raise openMax or lower openFor");
    }
    Ok(())
}

fn check_limits(guard: &GuardDocument) -> Result<(), Diagnostic> {
    if let Some(limit) = &guard.concurrency
        && let Some(min) = limit.min.filter(|min| *min > limit.max)
    {
        let reason = format!("{min} is more than max, {}", limit.max);
        return wrong("concurrency.min", reason, "raise max or lower min");
    }
    if let Some(misses) = &guard.misses
        && let Some(each) = misses.per_client.filter(|each| *each > misses.max)
    {
        let reason = format!("{each} is more than max, {}", misses.max);
        return wrong("misses.perClient", reason, "raise max or lower perClient");
    }
    if let Some(backoff) = &guard.backoff
        && let Some(max) = backoff.max.filter(|max| *max < backoff.first)
    {
        let reason = format!("{max} is shorter than first, {}", backoff.first);
        return wrong("backoff.max", reason, "raise max or lower first");
    }
    Ok(())
}

fn check_retries(guard: &GuardDocument) -> Result<(), Diagnostic> {
    let Some(retries) = &guard.retries else { return Ok(()) };
    if FailureSet::of(&retries.on).looks_at_grpc() {
        let reason = "gRPC calls are POST requests, which are never sent again";
        let fix = "leave the gRPC statuses out; the caller may retry by itself";
        return wrong("retries.on", reason, fix);
    }
    Ok(())
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
        deadlines: DeadlineRules {
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
    use crate::check::check as check_document;
    use crate::yaml::parse_yaml;

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
