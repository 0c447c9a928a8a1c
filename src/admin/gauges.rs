//! Gauges that are read from the running state when they are scraped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_coherence::RedisLog;
use outrigger_proxy::{LimiterState, Shared};
use outrigger_store::redis::{LookupResult, RedisTier, WriteResult};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

#[derive(Debug)]
struct State {
    shared: Arc<Shared>,
    tier: Option<Arc<RedisTier>>,
}

/// Registers gauges and counters that are read when a scrape asks for them: those of the data path,
/// and those of the tier in Redis, where there is one.
pub fn register(registry: &mut Registry, shared: &Arc<Shared>, tier: Option<Arc<RedisTier>>) {
    let state = State { shared: Arc::clone(shared), tier };
    registry.register_collector(Box::new(state));
}

/// The tier in Redis, and the purge log where that is in Redis, too.
fn encode_redis(
    encoder: &mut DescriptorEncoder<'_>,
    tier: &RedisTier,
    log: Option<&RedisLog>,
) -> Result<(), std::fmt::Error> {
    let counts = tier.counts();
    let lookups: Vec<_> =
        LookupResult::ALL.iter().map(|result| (result.as_str(), counts.lookups(*result))).collect();
    let writes: Vec<_> =
        WriteResult::ALL.iter().map(|result| (result.as_str(), counts.writes(*result))).collect();
    for (name, help, values) in [
        ("tier_lookups", "Shared tier: lookups by result", &lookups[..]),
        ("tier_writes", "Shared tier: writes by result", &writes[..]),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, value) in values {
            let labels = [("tier", "redis"), ("result", result)];
            ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Shared tier: 1 if it can be used";
    let mut family = encoder.encode_descriptor("tier_up", help, None, MetricType::Gauge)?;
    let up = ConstGauge::new(i64::from(tier.is_up()));
    up.encode(family.encode_family(&[("tier", "redis")])?)?;
    let mut gauges =
        vec![("tier_queue_bytes", "Shared tier: bytes waiting to be written", tier.queue_bytes())];
    if let Some((used, max)) = tier.quota() {
        let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        gauges.push(("tier_quota_bytes", "Shared tier: bytes of the namespace", number(used)));
        gauges.push(("tier_quota_bytes_max", "Shared tier: its quota", number(max)));
    }
    if let Some(log) = log {
        let connected = usize::from(log.is_connected());
        gauges.push(("purge_log_connected", "Purge log: 1 if it is followed", connected));
        gauges.push(("purge_queued", "Purge log: purges waiting to be appended", log.queued()));
    }
    for (name, help, value) in gauges {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(descriptor)?;
    }
    Ok(())
}

/// Name and help text of a gauge, and the function that reads it.
type NamedGauge<T> = (&'static str, &'static str, fn(&T) -> i64);

/// Circuit breakers, limits and budgets of requests to the upstream.
fn encode_guard(
    encoder: &mut DescriptorEncoder<'_>,
    shared: &Shared,
) -> Result<(), std::fmt::Error> {
    let guard = shared.guard_state();
    let help = "Circuit breakers: 0 closed, 1 half-open, 2 open";
    let mut family = encoder.encode_descriptor("breaker_state", help, None, MetricType::Gauge)?;
    for breaker in &guard.breakers {
        let value = match breaker.status.state {
            outrigger_guard::State::Closed => 0,
            outrigger_guard::State::HalfOpen => 1,
            outrigger_guard::State::Open => 2,
        };
        let labels = [("breaker", breaker.name.as_str())];
        ConstGauge::<i64>::new(value).encode(family.encode_family(&labels)?)?;
    }
    let limits: [NamedGauge<LimiterState>; 3] = [
        ("concurrency_limit", "Requests that may be under way to the upstream", |limiter| {
            i64::from(limiter.status.limit)
        }),
        ("concurrency_in_flight", "Requests under way to the upstream", |limiter| {
            i64::from(limiter.status.in_flight)
        }),
        ("concurrency_queued", "Requests that wait to be sent to the upstream", |limiter| {
            i64::from(limiter.status.queued)
        }),
    ];
    for (name, help, value) in limits {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for limiter in &guard.limiters {
            let labels = [("limit", limiter.name.as_str())];
            ConstGauge::new(value(limiter)).encode(family.encode_family(&labels)?)?;
        }
    }
    for (name, help, value) in [
        ("misses_under_way", "Fetches for the cache under way", i64::from(guard.misses)),
        ("refreshes_under_way", "Refreshes behind a response", i64::from(guard.refreshes)),
        (
            "backing_off_keys",
            "Keys that wait before they are validated again",
            i64::try_from(guard.backing_off).unwrap_or(i64::MAX),
        ),
    ] {
        let metric = ConstGauge::new(value);
        let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(descriptor)?;
    }
    Ok(())
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let shared = &self.shared;
        if let Some(tier) = &self.tier {
            let log = shared.log().as_redis();
            encode_redis(&mut encoder, tier, log.map(AsRef::as_ref))?;
        }
        let memory = shared.memory();
        let counts = memory.counts();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        encode_guard(&mut encoder, shared)?;
        let endpoints = shared.endpoint_states();
        let healthy = endpoints.iter().filter(|state| state.healthy && !state.ejected).count();
        let ejected = endpoints.iter().filter(|state| state.ejected).count();
        let gauges = [
            ("memory_bytes", "Memory tier: bytes held", signed(memory.bytes())),
            ("memory_bytes_max", "Memory tier: bound in bytes", signed(memory.bytes_max())),
            ("memory_keys", "Memory tier: keys held", signed(memory.keys())),
            ("fetches", "Fetches under way that can be joined", signed(shared.fetches() as u64)),
            (
                "fetches_unread",
                "Fetches that go on although all their clients have left",
                signed(shared.unread_fetches() as u64),
            ),
            ("purge_applied_seq", "Purge log: position applied", signed(shared.log().applied())),
            (
                "purge_matchers",
                "Purge log: matchers remembered",
                signed(shared.log().mirror().matchers() as u64),
            ),
            (
                "purge_holds",
                "Purge log: holds in effect",
                signed(shared.log().mirror().holds() as u64),
            ),
            ("upstream_endpoints", "Upstream endpoints known", signed(endpoints.len() as u64)),
            ("upstream_endpoints_healthy", "Upstream endpoints in use", signed(healthy as u64)),
            (
                "upstream_endpoints_ejected",
                "Upstream endpoints left out because requests to them failed",
                signed(ejected as u64),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor)?;
        }
        let counters = [
            (
                "memory_evictions",
                "Memory tier: entries removed to make room",
                counts.evicted.load(Ordering::Relaxed),
            ),
            (
                "memory_variants_dropped",
                "Memory tier: variants dropped because a key had too many",
                counts.variants_dropped.load(Ordering::Relaxed),
            ),
            (
                "purge_collapses",
                "Purge log: times that the mirror outgrew its bound",
                shared.log().mirror().collapses(),
            ),
            ("purge_gaps", "Purge log: times that events were missing", shared.log().gaps()),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor)?;
        }
        Ok(())
    }
}
