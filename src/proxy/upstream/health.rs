//! Active health checks: a connection, or a GET that must be answered with 200. A check goes the
//! way that requests go: same protocol, same TLS, a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::request::RequestBody;
use crate::error::UpstreamError;
use crate::upstream::address::EndpointAddress;
use crate::upstream::connect::{Connection, Connector};
use crate::upstream::settings::{HealthCheckSettings, Timeouts, UpstreamSettings};

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("{0}")]
    Connect(#[from] UpstreamError),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the status is {0}, not 200")]
    Status(StatusCode),
    #[error("it took longer than {0} ms")]
    Timeout(u64),
}

/// How endpoints are checked.
pub(crate) struct HealthCheck {
    /// `None`: a connection is the check.
    path: Option<PathAndQuery>,
    authority: String,
    scheme: Scheme,
    /// Limits of the phases; connecting and TLS each have the time of the whole check.
    timeouts: Timeouts,
    healthy_after: usize,
    unhealthy_after: usize,
    connector: Arc<Connector>,
}

impl HealthCheck {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        check: &HealthCheckSettings,
        connector: &Arc<Connector>,
    ) -> Self {
        let usable = |path: &String| path.parse().unwrap_or(PathAndQuery::from_static("/"));
        let millis = check.timeout_ms;
        HealthCheck {
            path: check.path.as_ref().map(usable),
            authority: settings.authority.clone(),
            scheme: if settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
            timeouts: Timeouts { connect_ms: millis, tls_ms: millis, ..settings.timeouts },
            healthy_after: check.healthy_after,
            unhealthy_after: check.unhealthy_after,
            connector: Arc::clone(connector),
        }
    }

    /// Checks an endpoint and notes the result. Answers whether its health has changed: healthy
    /// again, or ill and why.
    pub(crate) async fn run(
        &self,
        endpoint: &EndpointAddress,
        health: &Health,
    ) -> Option<Result<(), CheckError>> {
        let result = self.check(endpoint).await;
        let healthy = result.is_ok();
        let threshold = if healthy { self.healthy_after } else { self.unhealthy_after };
        health.observe(healthy, threshold).then_some(result)
    }

    async fn check(&self, endpoint: &EndpointAddress) -> Result<(), CheckError> {
        let millis = self.timeouts.connect_ms;
        let work = async {
            let Some(path) = &self.path else {
                self.connector.open(endpoint, None, &self.timeouts).await?;
                return Ok(());
            };
            let connection = self.connector.connect(endpoint, None, &self.timeouts).await?;
            self.get(path, connection).await
        };
        let timed = tokio::time::timeout(Duration::from_millis(millis), work).await;
        timed.unwrap_or(Err(CheckError::Timeout(millis)))
    }

    /// Asks for the path and reads the response to its end.
    async fn get(&self, path: &PathAndQuery, mut connection: Connection) -> Result<(), CheckError> {
        let mut request = Request::new(RequestBody::Empty);
        let response = match &mut connection {
            Connection::Http1(sender) => {
                if let Ok(host) = HeaderValue::from_str(&self.authority) {
                    request.headers_mut().insert(HOST, host);
                }
                *request.uri_mut() = Uri::from(path.clone());
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => {
                let uri = Uri::builder()
                    .scheme(self.scheme.clone())
                    .authority(self.authority.as_str())
                    .path_and_query(path.clone());
                *request.uri_mut() = uri.build().unwrap_or_else(|_| Uri::from(path.clone()));
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        read(response).await
    }
}

async fn read(response: Response<Incoming>) -> Result<(), CheckError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(CheckError::Status(head.status));
    }
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Whether an endpoint passes its checks. One that has not been checked yet counts as healthy.
#[derive(Debug)]
pub(crate) struct Health {
    healthy: AtomicBool,
    /// Checks in a row with the other result.
    contrary: AtomicUsize,
}

impl Default for Health {
    fn default() -> Self {
        Health { healthy: AtomicBool::new(true), contrary: AtomicUsize::new(0) }
    }
}

impl Health {
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Notes the result of a check; `true` if that changes the health. Only the one task that
    /// checks calls this, so that the two values need not change together.
    fn observe(&self, healthy: bool, threshold: usize) -> bool {
        if self.is_healthy() == healthy {
            self.contrary.store(0, Ordering::Relaxed);
            return false;
        }
        if self.contrary.fetch_add(1, Ordering::Relaxed) + 1 < threshold {
            return false;
        }
        self.contrary.store(0, Ordering::Relaxed);
        self.healthy.store(healthy, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_results_in_a_row_change_the_health() {
        let health = Health::default();
        assert!(!health.observe(false, 3) && !health.observe(false, 3));
        assert!(!health.observe(true, 2), "the row is broken");
        assert!(!health.observe(false, 3) && !health.observe(false, 3));
        assert!(health.is_healthy());
        assert!(health.observe(false, 3) && !health.is_healthy());
        assert!(!health.observe(false, 3), "it is ill already");
        assert!(!health.observe(true, 2) && health.observe(true, 2));
        assert!(health.is_healthy());
    }
}
