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
/// Longest time for an answer. A purge may wait 60 s for acknowledgements.
const ANSWER_MAX: Duration = Duration::from_secs(70);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    /// No connection within [`CONNECT_MAX`].
    #[error("no connection in time")]
    ConnectTimeout,
    /// The address cannot be reached.
    #[error(transparent)]
    Connect(std::io::Error),
    /// The request cannot be written: the address is no `Host`, or the target no URI.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// The connection broke, or what came is no HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// No answer within [`ANSWER_MAX`].
    #[error("nothing within {} s", ANSWER_MAX.as_secs())]
    AnswerTimeout,
}

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
            .unwrap_or(Err(ExchangeError::AnswerTimeout))
            .map_err(|error| failed(error.to_string()))
    })
}

async fn exchange(
    admin: &str,
    target: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), ExchangeError> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(admin))
        .await
        .map_err(|_| ExchangeError::ConnectTimeout)?
        .map_err(ExchangeError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(target)
        .header("host", admin)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    driver.abort();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).trim().to_owned()));
    Ok((status, value))
}
