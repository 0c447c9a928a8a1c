//! Request bodies of the admin port: JSON that is declared as such. A web page cannot send that
//! media type to another site without asking first (a CORS preflight, which fails here), so that
//! none can purge through the browser of an operator.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use crate::admin::error::ApiError;

/// A request body that was read as JSON.
///
/// `axum::Json` is not used: it takes every `+json` media type, and its messages differ.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::NotJson);
        }
        // The limit of its size is that of the layer around the routes.
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|_| ApiError::BodyNotRead)?;
        Ok(JsonBody(serde_json::from_slice(&body)?))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
