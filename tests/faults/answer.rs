//! One connection at an endpoint: requests are answered by the mode that is in
//! force when their head has been read.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::load::{Class, body_of};
use crate::origin::Log;
use crate::rows::EndpointState;
use crate::support::{Wire, head};

/// When a response was made, in milliseconds: tells its age whatever the proxy says of it.
pub const MADE: &str = "made";

/// How late a slow answer is.
pub const SLOW: Duration = Duration::from_millis(700);
/// So that what was sent before a reset is not lost with it.
const BEFORE_RESET: Duration = Duration::from_millis(5);
/// No peer waits longer than that.
const HANG_MAX: Duration = Duration::from_secs(30);

/// Milliseconds by the wall clock.
pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis())
}

/// Answers requests until the connection has ended, by whomever.
pub async fn converse(mut wire: Wire, modes: watch::Receiver<EndpointState>, log: Arc<Log>) {
    while let Ok(Some(request)) = wire.head().await {
        let path = request.word(1);
        let class = Class::of(path);
        log.arrived(class);
        let mode = *modes.borrow();
        // A client that wants the connection closed waits for that.
        let last = request.lists("connection", "close");
        match answer(&mut wire, mode, class, path).await {
            Then::Next if last => return,
            Then::Next => {}
            Then::Close => return,
            Then::Reset => return wire.reset(),
            Then::Hang => return hang(wire).await,
        }
    }
}

enum Then {
    Next,
    Close,
    Reset,
    Hang,
}

async fn answer(wire: &mut Wire, mode: EndpointState, class: Class, path: &str) -> Then {
    let (head, body) = response(class, path);
    let whole = [head.as_slice(), body.as_bytes()].concat();
    let in_head = &whole[..head.len() / 2];
    let in_body = &whole[..head.len() + body.len() / 2];
    match mode {
        EndpointState::Healthy => say(wire, &whole, Then::Next).await,
        EndpointState::Slow => {
            tokio::time::sleep(SLOW).await;
            say(wire, &response_bytes(class, path), Then::Next).await
        }
        EndpointState::Unavailable => say(wire, &unavailable(), Then::Next).await,
        EndpointState::Garbage => {
            say(wire, b"\x16\x03\x01 no such protocol\r\n\r\n\x00\xff", Then::Close).await
        }
        EndpointState::ResetBeforeHead => Then::Reset,
        EndpointState::ResetInHead => cut(wire, in_head).await,
        EndpointState::ResetInBody => cut(wire, in_body).await,
        EndpointState::HangBeforeHead => Then::Hang,
        EndpointState::HangInHead => say(wire, in_head, Then::Hang).await,
        EndpointState::HangInBody => say(wire, in_body, Then::Hang).await,
        // The door is about to shut on this connection.
        EndpointState::Refuse | EndpointState::Jam => Then::Hang,
    }
}

async fn say(wire: &mut Wire, bytes: &[u8], then: Then) -> Then {
    if wire.send(bytes).await.is_ok() { then } else { Then::Close }
}

async fn cut(wire: &mut Wire, bytes: &[u8]) -> Then {
    let then = say(wire, bytes, Then::Reset).await;
    tokio::time::sleep(BEFORE_RESET).await;
    then
}

async fn hang(mut wire: Wire) {
    let left = async { while matches!(wire.fill().await, Ok(read) if read > 0) {} };
    // Whether the peer has left or the time has passed: the connection ends.
    let _ = tokio::time::timeout(HANG_MAX, left).await;
}

fn response(class: Class, path: &str) -> (Vec<u8>, String) {
    let body = body_of(path);
    let (length, made) = (body.len().to_string(), now_ms().to_string());
    let date = httpdate::fmt_http_date(SystemTime::now());
    let fields = [
        // Some caches store nothing without it.
        ("Date", date.as_str()),
        ("Content-Type", "text/plain"),
        ("Cache-Control", class.cache_control()),
        (MADE, &made),
        ("Content-Length", &length),
    ];
    (head(200, &fields), body)
}

fn response_bytes(class: Class, path: &str) -> Vec<u8> {
    let (mut bytes, body) = response(class, path);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn unavailable() -> Vec<u8> {
    let body = "unavailable";
    let length = body.len().to_string();
    let mut bytes = head(503, &[("Content-Type", "text/plain"), ("Content-Length", &length)]);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}
