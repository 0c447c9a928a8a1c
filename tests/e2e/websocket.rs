//! WebSocket: an upgrade becomes a tunnel that carries everything, in both directions, to the close code.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Outrigger, PythonProgram};

#[test]
fn websocket_conversations_pass_unharmed() {
    let server = PythonProgram::start("websocket_server.py");
    let outrigger = Outrigger::in_front_of(&format!("http://127.0.0.1:{}", server.port));

    let client =
        PythonProgram::report("websocket_client.py", &[&format!("ws://{}", outrigger.address)]);
    let seen_by_server: HashMap<String, Value> = (0..3)
        .map(|_| {
            server.event(Duration::from_secs(10)).expect("three conversations end at the server")
        })
        .map(|event| (event["path"].as_str().unwrap().to_owned(), event))
        .collect();

    let echo = &client["echo"];
    assert_eq!(echo["subprotocol"], "chat.example", "negotiation reaches both ends: {echo}");
    assert_eq!(echo["compressed"], true, "permessage-deflate is negotiated end to end: {echo}");
    assert_eq!(echo["text"], "grüß dich");
    assert_eq!(echo["large_intact"], true);
    assert_eq!(echo["after_a_pause"], "after a pause");
    assert_eq!(echo["close"], json!([4001, "client says bye"]));
    let at_server = &seen_by_server["/echo"];
    assert_eq!(
        at_server["close"],
        json!([4001, "client says bye"]),
        "the close code reaches the server"
    );
    assert_eq!(
        at_server["headers"]["upgrade"].as_str().map(str::to_lowercase).as_deref(),
        Some("websocket")
    );

    let push = &client["push"];
    assert_eq!(push["first"], "hello from the server");
    assert_eq!(
        push["close"],
        json!([4002, "server says bye"]),
        "the close code reaches the client"
    );
    let at_server = &seen_by_server["/push"];
    assert_eq!(at_server["pong"], true, "the client's pong reaches the server: {at_server}");
    assert_eq!(at_server["large_intact"], true, "{at_server}");

    assert_eq!(client["both_ways"]["in_order"], true);
    assert_eq!(seen_by_server["/both-ways"]["in_order"], true, "{}", seen_by_server["/both-ways"]);

    assert_eq!(
        client["refused"],
        json!({"status": 403, "body": "not for you\n"}),
        "no tunnel without a 101"
    );
}
