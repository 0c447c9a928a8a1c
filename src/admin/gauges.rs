//! Gauges that are read from the running state when they are scraped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_proxy::Shared;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

#[derive(Debug)]
struct State(Arc<Shared>);

/// Registers the gauges.
pub fn register(registry: &mut Registry, shared: &Arc<Shared>) {
    registry.register_collector(Box::new(State(Arc::clone(shared))));
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let shared = &self.0;
        let memory = shared.memory();
        let counts = memory.counts();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let endpoints = shared.endpoint_states();
        let healthy = endpoints.iter().filter(|state| state.healthy).count();
        let gauges = [
            ("memory_bytes", "Memory tier: bytes held", signed(memory.bytes())),
            ("memory_bytes_max", "Memory tier: bound in bytes", signed(memory.bytes_max())),
            ("memory_keys", "Memory tier: keys held", signed(memory.keys())),
            ("fetches", "Fetches under way that can be joined", signed(shared.fetches() as u64)),
            ("purge_applied_seq", "Purge log: position applied", signed(shared.log().applied())),
            (
                "purge_matchers",
                "Purge log: matchers remembered",
                signed(shared.log().mirror().matchers() as u64),
            ),
            ("upstream_endpoints", "Upstream endpoints known", signed(endpoints.len() as u64)),
            ("upstream_endpoints_healthy", "Upstream endpoints in use", signed(healthy as u64)),
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
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor)?;
        }
        Ok(())
    }
}
