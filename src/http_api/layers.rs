//! The layers around the routes of an API.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use http::StatusCode;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

/// What one request to an API may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Size of a request body in bytes. Extractors refuse a larger one while they read it.
    pub body_bytes_max: usize,
    /// Time from the end of the request's head to the head of its response, including the time in
    /// which the client sends the body. After it the client gets 408 (RFC 9110, section 15.5.9).
    pub time_max: Duration,
}

/// Puts the layers around all routes and the fallback of an API.
///
/// From the outside in: a span and two events per request at the level `debug`, 500 for a handler
/// that panics, the limit of time, the limit of the body. Responses with a 5xx status are not
/// logged as failures: `/readyz` answers 503 whenever the process starts or ends.
pub fn with_layers(router: Router, limits: RequestLimits) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(TraceLayer::new_for_http().make_span_with(span).on_failure(()))
            .layer(CatchPanicLayer::new())
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.time_max))
            .layer(DefaultBodyLimit::max(limits.body_bytes_max)),
    )
}

/// The span of a request. The query is left out: it may quote header fields of a client, and with
/// them credentials.
fn span(request: &Request) -> Span {
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::body::{Body, Bytes};
    use axum::routing::{get, post};
    use hyper::body::Frame;
    use tower::Service;

    use super::*;

    const LIMITS: RequestLimits =
        RequestLimits { body_bytes_max: 10, time_max: Duration::from_secs(5) };

    /// A body that never yields a frame.
    struct Stalled;

    impl hyper::body::Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    async fn panics() -> &'static str {
        panic!("on purpose")
    }

    fn api() -> Router {
        let router = Router::new()
            .route("/panic", get(panics))
            .route("/never", get(std::future::pending::<()>))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }));
        with_layers(router, LIMITS)
    }

    async fn status(method: &str, path: &str, body: impl Into<Body>) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        api().call(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_panic_is_answered() {
        assert_eq!(status("GET", "/panic", "").await, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_after_its_time() {
        let began = tokio::time::Instant::now();
        assert_eq!(status("GET", "/never", "").await, StatusCode::REQUEST_TIMEOUT);
        assert!(began.elapsed() >= LIMITS.time_max);
        let stalled = Body::new(Stalled);
        assert_eq!(status("POST", "/length", stalled).await, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        assert_eq!(status("POST", "/length", "0123456789").await, StatusCode::OK);
        let longer = "0123456789a";
        assert_eq!(status("POST", "/length", longer).await, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
