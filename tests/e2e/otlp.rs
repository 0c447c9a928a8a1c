//! Traces: one server span for each sampled request, none for the others, exported to a real receiver.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::Value;

use crate::support::{Origin, Outrigger, PythonProgram, get};

const CALLER: &str = "00f067aa0ba902b7";

/// An origin whose answers may be cached for a minute, and the `traceparent` of every request that reached it.
fn tracing_origin() -> (Origin, Receiver<(String, String)>) {
    let (sender, seen) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let origin = Origin::start(move |request| {
        let traceparent =
            request.headers().get("traceparent").map_or("", |value| value.to_str().unwrap());
        sender
            .lock()
            .unwrap()
            .send((request.uri().path().to_owned(), traceparent.to_owned()))
            .unwrap();
        Response::builder()
            .header("cache-control", "max-age=60")
            .body(Full::new(Bytes::from_static(b"traced\n")))
            .unwrap()
    });
    (origin, seen)
}

/// All spans, once the proxy has been told to stop and so has flushed what it held.
fn spans_at_the_end(mut outrigger: Outrigger, receiver: &PythonProgram) -> Vec<Value> {
    let status = outrigger.process.terminate(Duration::from_secs(20));
    assert!(status.success(), "outrigger ended with {status}");
    std::iter::from_fn(|| receiver.event(Duration::from_secs(3))).collect()
}

fn spans_of<'a>(spans: &'a [Value], trace: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["trace"] == trace).collect()
}

#[test]
fn sampled_requests_become_one_server_span_each() {
    let (miss, hit, unsampled) = (
        "11111111111111111111111111111111",
        "22222222222222222222222222222222",
        "33333333333333333333333333333333",
    );
    let receiver = PythonProgram::start("otlp_receiver.py");
    let (origin, at_origin) = tracing_origin();
    let collector = format!("http://127.0.0.1:{}", receiver.port);
    let outrigger = Outrigger::run(&["--upstream", &origin.url(), "--otlp", &collector], "");

    let traced = |path: &str, trace: &str, flags: &str| {
        let reply =
            get(&outrigger.url(path), &[("traceparent", &format!("00-{trace}-{CALLER}-{flags}"))]);
        assert_eq!(reply.status, 200);
        reply
    };
    assert!(!traced("/sampled", miss, "01").is_hit());
    assert!(traced("/sampled", hit, "01").is_hit());
    assert!(!traced("/unsampled", unsampled, "00").is_hit());
    assert!(traced("/unsampled", unsampled, "00").is_hit());

    let spans = spans_at_the_end(outrigger, &receiver);
    for (trace, word, tier) in [(miss, "miss", "upstream"), (hit, "hit", "memory")] {
        let of_trace = spans_of(&spans, trace);
        assert_eq!(of_trace.len(), 1, "one span for the {word}: {spans:?}");
        let span = of_trace[0];
        assert_eq!(span["kind"], "SPAN_KIND_SERVER", "{span}");
        assert_eq!(span["parent"], CALLER, "{span}");
        assert!(span["start"].as_u64() <= span["end"].as_u64(), "{span}");
        assert!(span["attributes"]["outrigger.route"].is_string(), "{span}");
        assert_eq!(span["attributes"]["outrigger.outcome"], word, "{span}");
        assert_eq!(span["attributes"]["outrigger.tier"], tier, "{span}");
        assert!(span["resource"]["service.name"].is_string(), "{span}");
    }
    assert_eq!(spans_of(&spans, unsampled).len(), 0, "unsampled requests make no span: {spans:?}");
    assert_eq!(spans.len(), 2, "no span is anyone else's: {spans:?}");

    // The hop to the origin: the same trace; below our span when there is one, and marked alike.
    let to_origin: Vec<_> = at_origin.try_iter().collect();
    assert_eq!(to_origin.len(), 2, "hits do not reach the origin: {to_origin:?}");
    let ours = spans_of(&spans, miss)[0]["span"].as_str().unwrap();
    assert_eq!(to_origin[0], ("/sampled".to_owned(), format!("00-{miss}-{ours}-01")));
    let (path, traceparent) = &to_origin[1];
    assert_eq!(path, "/unsampled");
    assert!(
        traceparent.starts_with(&format!("00-{unsampled}-")) && traceparent.ends_with("-00"),
        "{traceparent}"
    );
}

#[test]
fn requests_without_a_trace_are_sampled_as_configured() {
    for (percent, expected) in [(100, 1), (0, 0)] {
        let receiver = PythonProgram::start("otlp_receiver.py");
        let (origin, at_origin) = tracing_origin();
        let config = format!(
            "telemetry: {{accessLog: \"off\", otlp: {{url: \"http://127.0.0.1:{}\", rootSamplePercent: {percent}}}}}\n",
            receiver.port
        );
        let outrigger = Outrigger::run(&["--upstream", &origin.url()], &config);

        assert_eq!(get(&outrigger.url("/"), &[]).status, 200);
        // No trace at all, in the specification's words: an invalid header is as good as none.
        assert_eq!(get(&outrigger.url("/"), &[("traceparent", "00-junk-junk-01")]).status, 200);

        let spans = spans_at_the_end(outrigger, &receiver);
        assert_eq!(spans.len(), 2 * expected, "rootSamplePercent {percent}: {spans:?}");
        assert!(spans.iter().all(|span| span["parent"] == ""), "roots have no parent: {spans:?}");
        let (_, traceparent) = at_origin.try_recv().expect("one request reaches the origin");
        if let [first, ..] = &spans[..] {
            let (trace, span) = (first["trace"].as_str().unwrap(), first["span"].as_str().unwrap());
            assert_eq!(traceparent, format!("00-{trace}-{span}-01"));
        } else {
            assert!(!traceparent.ends_with("-01"), "{traceparent}");
        }
    }
}

#[test]
fn a_dead_collector_costs_no_request() {
    let (origin, _at_origin) = tracing_origin();
    let nobody = format!("http://127.0.0.1:{}", crate::support::free_port());
    let mut outrigger = Outrigger::run(&["--upstream", &origin.url(), "--otlp", &nobody], "");
    for number in 0..50 {
        let trace = format!("00-{number:032x}-{CALLER}-01").replace("00-0000", "00-1000");
        assert_eq!(
            get(&outrigger.url(&format!("/{number}")), &[("traceparent", &trace)]).status,
            200
        );
    }
    assert!(outrigger.process.terminate(Duration::from_secs(20)).success());
}
