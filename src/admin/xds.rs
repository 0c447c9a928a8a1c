//! The connection to istiod, for people and for Prometheus.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_control::xds::{XdsResult, XdsStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};
use strum::VariantArray;

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The state of the connection; null where policy does not come from istiod.
pub(super) fn state(status: Option<&XdsStatus>) -> Value {
    let Some(status) = status else { return Value::Null };
    let view = status.view();
    let age = view.last_response.and_then(|at| SystemTime::now().duration_since(at).ok());
    json!({
        "connected": view.connected,
        "sinceUnixSeconds": view.since.map(seconds),
        "controlPlane": view.control_plane,
        "version": view.version,
        "lastResponseAgeSeconds": age.map(|age| age.as_secs()),
        "fromDiskSavedUnixSeconds": view.kept_since.map(seconds),
        "lastNack": view.last_nack.map(|nack| json!({
            "unixSeconds": seconds(nack.at),
            "version": nack.version,
            "reason": nack.reason,
        })),
        "lastFailure": view.last_failure.map(|failure| json!({
            "unixSeconds": seconds(failure.at),
            "reason": failure.reason,
        })),
        "connects": status.connects(),
        "failures": status.failures(),
    })
}

/// Gauges and counters of the connection, read when they are scraped.
#[derive(Debug)]
pub struct Gauges(pub Arc<XdsStatus>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let view = self.0.view();
        let time =
            |at: Option<SystemTime>| i64::try_from(at.map_or(0, seconds)).unwrap_or(i64::MAX);
        let nack = view.last_nack.as_ref().map(|nack| nack.at);
        for (name, help, value) in [
            ("xds_connected", "istiod: 1 if it is connected", i64::from(view.connected)),
            (
                "xds_last_response_timestamp_seconds",
                "istiod: when its last response came, 0 if none has",
                time(view.last_response),
            ),
            (
                "xds_last_nack_timestamp_seconds",
                "istiod: when its policy was refused, 0 unless that is still so",
                time(nack),
            ),
            (
                "xds_policy_from_disk",
                "istiod: 1 if the policy in force was kept from an earlier run",
                i64::from(view.kept_since.is_some()),
            ),
        ] {
            let metric = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor)?;
        }
        let help = "istiod: responses by result";
        let mut family =
            encoder.encode_descriptor("xds_responses", help, None, MetricType::Counter)?;
        for &result in XdsResult::VARIANTS {
            let labels = [("result", result.as_str())];
            ConstCounter::new(self.0.responses(result)).encode(family.encode_family(&labels)?)?;
        }
        let help = "istiod: connections by result";
        let mut family =
            encoder.encode_descriptor("xds_connects", help, None, MetricType::Counter)?;
        for (result, count) in [("connected", self.0.connects()), ("failed", self.0.failures())] {
            let labels = [("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
