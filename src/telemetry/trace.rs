//! Traces: W3C Trace Context in and out, and one server span for each sampled request, exported
//! over OTLP.
//!
//! `traceparent` is read here and not by the SDK's propagator: for a request that is not sampled
//! nothing is allocated, and the field passes through to the upstream untouched. For a sampled one
//! the upstream gets our span as its parent.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use crate::outcome::Outcome;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The exporter refused its settings.
    #[error("cannot export traces to {url}: {reason}")]
    Exporter {
        /// The URL of the OTLP endpoint.
        url: String,
        /// The reason that the exporter gave.
        reason: String,
    },
}

/// The context of a caller, read from `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace id; never zero.
    pub trace_id: u128,
    /// The caller's span id.
    pub span_id: u64,
    /// Whether the caller records this trace (the sampled flag).
    pub sampled: bool,
}

/// Reads a `traceparent` (W3C Trace Context §3.2). Unknown versions are read as version 00.
pub fn parse_traceparent(text: &[u8]) -> Option<TraceParent> {
    if text.len() < 55 || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    let version = hex(&text[..2])? as u8;
    if version == 0xff
        || (version == 0 && text.len() != 55)
        || text.get(55).is_some_and(|b| *b != b'-')
    {
        return None;
    }
    let trace_id = hex(&text[3..35])?;
    let span_id = hex(&text[36..52])? as u64;
    let flags = hex(&text[53..55])? as u8;
    (trace_id != 0 && span_id != 0).then_some(TraceParent {
        trace_id,
        span_id,
        sampled: flags & 1 == 1,
    })
}

fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |sum, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(digit))
    })
}

/// Makes server spans and exports them over OTLP.
#[derive(Debug)]
pub struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    root_percent: u8,
}

impl Tracing {
    /// Starts exporting to an OTLP gRPC endpoint. Requests without `traceparent` are sampled at
    /// `root_percent`. Must be called within a Tokio runtime, which then carries the connection.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn start(url: &str, root_percent: u8, instance: &str) -> Result<Self, TraceError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url)
            .with_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| TraceError::Exporter {
                url: url.to_owned(),
                reason: error.to_string(),
            })?;
        let resource = Resource::builder()
            .with_service_name("outrigger")
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // Sampling is decided before a span is made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("outrigger");
        Ok(Tracing { provider, tracer, root_percent })
    }

    /// Begins the span of a request, if the request is sampled.
    pub fn begin(&self, headers: &HeaderMap, method: &http::Method) -> Option<ServerSpan> {
        let parent = headers.get(&TRACEPARENT).and_then(|text| parse_traceparent(text.as_bytes()));
        let sampled = match parent {
            Some(parent) => parent.sampled,
            None => self.root_percent > 0 && fastrand::u8(0..100) < self.root_percent,
        };
        if !sampled {
            return None;
        }
        let mut context = Context::new();
        if let Some(parent) = parent {
            context = context.with_remote_span_context(SpanContext::new(
                TraceId::from_bytes(parent.trace_id.to_be_bytes()),
                SpanId::from_bytes(parent.span_id.to_be_bytes()),
                TraceFlags::SAMPLED,
                true,
                TraceState::default(),
            ));
        }
        let builder = SpanBuilder::from_name(method.as_str().to_owned())
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now());
        let span = self.tracer.build_with_context(builder, &context);
        Some(ServerSpan { span })
    }

    /// Sends what is left. Blocks for at most the export time-out.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "spans may be lost: the trace exporter did not finish");
        }
    }
}

/// The span of one sampled request.
#[derive(Debug)]
pub struct ServerSpan {
    span: opentelemetry_sdk::trace::Span,
}

/// The attributes of a span that are known at its end.
#[derive(Debug)]
pub struct SpanEnd<'a> {
    /// Name of the route in the policy.
    pub route: &'a str,
    /// How the request ended.
    pub outcome: Outcome,
    /// The status that the client got.
    pub status: u16,
    /// The path of the request, without the query.
    pub path: &'a str,
    /// The host of the request as the client sent it.
    pub host: &'a str,
}

impl ServerSpan {
    /// The `traceparent` under which the upstream is called.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let context = self.span.span_context();
        let text = format!("00-{}-{}-01", context.trace_id(), context.span_id());
        HeaderValue::from_str(&text).ok()
    }

    /// Puts our span into the fields of an upstream request.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.traceparent() {
            headers.insert(&TRACEPARENT, value);
        }
    }

    /// The trace id, for the access log.
    pub fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// Sets what is known at the end, and ends the span.
    pub fn finish(mut self, end: &SpanEnd<'_>) {
        self.span.set_attributes([
            KeyValue::new("outrigger.route", end.route.to_owned()),
            KeyValue::new("outrigger.outcome", end.outcome.as_str()),
            KeyValue::new("outrigger.tier", end.outcome.answered_by().as_str()),
            KeyValue::new("http.response.status_code", i64::from(end.status)),
            KeyValue::new("url.path", end.path.to_owned()),
            KeyValue::new("server.address", end.host.to_owned()),
        ]);
        if end.status >= 500 {
            self.span.set_status(Status::error(end.outcome.as_str()));
        }
        self.span.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_strictly() {
        let good = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = parse_traceparent(good).unwrap();
        assert_eq!(parent.span_id, 0xb7ad_6b71_6920_3331);
        assert!(parent.sampled);
        for bad in [
            &b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"[..],
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            b"",
        ] {
            assert_eq!(parse_traceparent(bad), None);
        }
    }
}
