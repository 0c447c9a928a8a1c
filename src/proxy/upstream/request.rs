//! A request to the upstream, as the pipeline describes it. It says what to ask, where to send it
//! and on whose behalf; which endpoint and which connection carry it is decided in `attempt`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::body::request::RequestBody;
use crate::guard::{CallerDeadline, RouteGuard, Urgency};
use crate::upstream::settings::Protocol;

/// An interim (1xx) response of the upstream on its way to the client (RFC 9110 §15.2).
#[derive(Clone, Debug)]
pub(crate) struct Interim {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Where interim responses go. A full queue drops them.
pub(crate) type InterimSender = mpsc::Sender<Interim>;

/// The address that Envoy's route names for one request. It takes the place of the configured
/// upstream: there is one address, no balancing and no TLS, and the protocol is the client's, as
/// Envoy speaks to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) http2: bool,
}

impl Destination {
    /// The protocol to speak to it.
    pub(crate) fn protocol(self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Http1 }
    }
}

/// A request to the upstream.
pub(crate) struct UpstreamRequest {
    pub(crate) method: Method,
    /// Path and query as sent.
    pub(crate) target: PathAndQuery,
    /// Host and port that the client asked for.
    pub(crate) authority: String,
    /// Where it goes; `None` for an endpoint of the configured upstream.
    pub(crate) to: Option<Destination>,
    /// Header fields, hop-by-hop fields already replaced.
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Resolves when the body has been sent; the wait for the response head begins then.
    pub(crate) body_sent: Option<oneshot::Receiver<()>>,
    /// Digest of the cache key, for choosing an endpoint.
    pub(crate) hash: u128,
    pub(crate) guard: Arc<RouteGuard>,
    pub(crate) urgency: Urgency,
    /// When the one caller for whom this is stops waiting.
    pub(crate) caller: Option<CallerDeadline>,
    pub(crate) interim: Option<InterimSender>,
}

impl UpstreamRequest {
    /// Whether it may be sent twice: it has no body, and its method is idempotent (RFC 9110
    /// §9.2.2).
    pub(crate) fn is_repeatable(&self) -> bool {
        let idempotent = matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        );
        idempotent && self.body.is_empty()
    }

    /// A copy of it without the body, which can be sent only once.
    pub(crate) fn again(&self) -> UpstreamRequest {
        UpstreamRequest {
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            to: self.to,
            headers: self.headers.clone(),
            body: RequestBody::Empty,
            body_sent: None,
            hash: self.hash,
            guard: Arc::clone(&self.guard),
            urgency: self.urgency,
            caller: self.caller,
            interim: self.interim.clone(),
        }
    }
}
