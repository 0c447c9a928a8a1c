//! What is sent to the admin port: JSON, and declared as such, so that no web page can send it
//! through a browser.

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::admin::{Page, json};

/// A larger body is refused.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// An answer to what cannot be done.
pub(super) fn refused(status: StatusCode, reason: &str) -> Page {
    json(status, &json!({"error": reason}))
}

/// Reads a body.
///
/// # Errors
/// The answer that says what is wrong with it.
pub(super) async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Page> {
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        let reason = "send JSON with content-type: application/json";
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        let reason = "the body is too large or broke off";
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
    };
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| refused(StatusCode::BAD_REQUEST, &error.to_string()))
}
