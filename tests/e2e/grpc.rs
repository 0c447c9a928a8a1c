//! gRPC over h2c: every kind of call, trailers, deadlines and cancellation, with nothing buffered.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Outrigger, PythonProgram};

#[test]
fn grpc_calls_pass_unharmed() {
    let server = PythonProgram::start("grpc_server.py");
    let outrigger = Outrigger::in_front_of(&format!("h2c://127.0.0.1:{}", server.port));

    let client = PythonProgram::report("grpc_client.py", &[&outrigger.address]);

    let unary = &client["unary"];
    assert_eq!(unary["intact"], true, "3 MiB there and back: {client}");
    assert_eq!(unary["code"], "OK");
    assert_eq!(unary["empty"], true);
    assert_eq!(unary["hundred_at_once"], true);
    assert_eq!(unary["initial"]["x-initial"], "sent first");
    assert_eq!(unary["trailing"]["x-trailing"], "sent last", "metadata of the trailers: {unary}");
    assert_eq!(unary["trailing"]["x-echo-bin"], "00ff80", "binary metadata, both ways: {unary}");

    assert_eq!(client["server_stream"], json!({"count": 1000, "in_order": true}));
    assert_eq!(client["client_stream"], 3_000_000);

    let bidirectional = &client["bidirectional"];
    assert_eq!(bidirectional["in_order"], true, "{bidirectional}");
    assert_eq!(bidirectional["rest"], 0);
    assert_eq!(bidirectional["code"], "OK");
    assert_eq!(bidirectional["trailing"]["x-conversation"], "complete");

    let fail = &client["fail"];
    assert_eq!(fail["code"], "FAILED_PRECONDITION", "{fail}");
    assert_eq!(fail["details"], "100 % wrong: grüße");
    assert_eq!(fail["trailing"]["x-reason"], "tested", "{fail}");

    let midway = &client["fail_midway"];
    assert_eq!(midway["messages"], json!(["one", "two"]), "{midway}");
    assert_eq!(midway["code"], "DATA_LOSS", "{midway}");
    assert_eq!(client["unknown"], "UNIMPLEMENTED");

    let deadline = &client["deadline"];
    assert_eq!(deadline["code"], "DEADLINE_EXCEEDED");
    assert!(deadline["after"].as_f64().unwrap() < 3.0, "{deadline}");
    assert_eq!(client["cancel"], "CANCELLED");

    // What the server learned of the calls that their client gave up.
    let reports: HashMap<String, Value> = (0..2)
        .map(|_| {
            server
                .event(Duration::from_secs(25))
                .expect("the server learns that two calls are over")
        })
        .map(|report| (report["method"].as_str().unwrap().to_owned(), report))
        .collect();
    let slept = &reports["sleep"];
    let remaining = slept["remaining"].as_f64().expect("the deadline reaches the server");
    assert!((0.0..=0.6).contains(&remaining), "{slept}");
    assert!(
        slept["ended_after"].as_f64().unwrap() < 5.0,
        "the server stops with its client: {slept}"
    );
    let sent = reports["endless"]["sent"].as_u64().unwrap();
    assert!(sent < 1000, "a cancelled stream is reset at the server, after {sent} messages");
}
