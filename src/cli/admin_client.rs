//! A client of the admin port, for commands that speak to a running process.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::app::error::CliError;

/// Where a running process has its admin port, unless told otherwise.
pub(super) const DEFAULT_ADMIN: &str = "127.0.0.1:15490";
/// Longest time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest time for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(70);

/// Asks the admin port: a GET, or a POST where there is a body.
///
/// # Errors
/// When it cannot be reached, or does not answer with JSON.
pub(super) fn ask(
    admin: &str,
    target: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), CliError> {
    let failed = |reason: String| {
        CliError::Startup(format!(
            "the admin port at {admin} does not answer: {reason}; say --admin ADDR:PORT"
        ))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        tokio::time::timeout(ANSWER_MAX, exchange(admin, target, body))
            .await
            .map_err(|_| failed(format!("nothing within {} s", ANSWER_MAX.as_secs())))?
            .map_err(failed)
    })
}

async fn exchange(
    admin: &str,
    target: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), String> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(admin))
        .await
        .map_err(|_| "no connection in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(target)
        .header("host", admin)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    driver.abort();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).trim().to_owned()));
    Ok((status, value))
}

/// A value as part of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("http://a/b?c=d e"), "http%3A%2F%2Fa%2Fb%3Fc%3Dd%20e");
    }
}
