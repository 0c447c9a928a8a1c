//! Why a request to the admin port failed, and how that is answered.

use axum::response::{IntoResponse, Response};
use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use outrigger_proxy::PurgeError;
use serde_json::json;

use crate::admin::explain_query::QueryError;
use crate::admin::reply;

/// Why a request failed. The message is what the client reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No such path.
    #[error("nothing here; GET / lists the pages")]
    NotFound,
    /// The read-only port does not have it; the admin port at this address may.
    #[error("not here; {0} has it")]
    NotOnReadOnlyPort(String),
    /// The path has other methods, listed as in `Allow`.
    #[error("use {0}")]
    MethodNotAllowed(&'static str),
    /// A query that cannot be understood.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The metrics could not be written.
    #[error(transparent)]
    Metrics(#[from] std::fmt::Error),
    /// A body that is not declared as JSON.
    #[error("send JSON with content-type: application/json")]
    NotJson,
    /// A body over the limit, or one that ended before its end.
    #[error("the body is too large or broke off")]
    BodyNotRead,
    /// A body that is not the JSON that is expected.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A purge without a matcher, or with several.
    #[error("say exactly one of \"url\", \"tag\", \"prefix\" and \"all\": true")]
    NotOneMatcher,
    /// A purge that the data path refused.
    #[error(transparent)]
    Purge(#[from] PurgeError),
    /// There is no circuit breaker.
    #[error("the policy in force has no circuit breaker")]
    NoBreaker,
    /// There are circuit breakers, but none of this name.
    #[error("no circuit breaker is named \"{name}\"; there is {}", known.join(", "))]
    UnknownBreaker {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The circuit breakers were replaced while the request was handled.
    #[error("the policy in force has changed; ask again")]
    PolicyChanged,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound
            | Self::NotOnReadOnlyPort(_)
            | Self::NoBreaker
            | Self::UnknownBreaker { .. }
            | Self::PolicyChanged => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Purge(PurgeError::Ending) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Query(_) | Self::Json(_) | Self::NotOneMatcher | Self::Purge(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyNotRead => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Metrics(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    /// Where JSON is sent, errors are JSON; elsewhere they are text.
    fn into_response(self) -> Response {
        let (status, message) = (self.status(), self.to_string());
        match self {
            Self::NotFound | Self::NotOnReadOnlyPort(_) | Self::Query(_) | Self::Metrics(_) => {
                reply::text(status, format!("{message}\n"))
            }
            Self::MethodNotAllowed(methods) => {
                let mut response = reply::text(status, format!("{message}\n"));
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
                response
            }
            Self::NotJson
            | Self::BodyNotRead
            | Self::Json(_)
            | Self::NotOneMatcher
            | Self::Purge(_)
            | Self::NoBreaker
            | Self::UnknownBreaker { .. }
            | Self::PolicyChanged => reply::json(status, &json!({"error": message})),
        }
    }
}
