//! Requests that change something: what is stored for their target is invalidated, by all pods, in
//! the way that the route's consistency asks for (RFC 9111 §4.4).
//!
//! A write runs in a task of its own: a client that leaves in the middle of it must not take the
//! invalidation along.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use outrigger_coherence::{Event, HoldGuard, LogError, Matcher, Mode, PurgeRequest, Purged, Seq};
use outrigger_policy::key::{canonical_uri, digest};
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::values::Consistency;
use outrigger_policy::{Peer, RequestTarget, Route};
use outrigger_semantics::{invalidate, tags};

use crate::app::{Active, Worker};
use crate::pipeline::request::RequestContext;
use crate::upstream::{Call, UpstreamError, UpstreamResponse};

/// A write that others were told of must be over before they stop waiting for its end.
const HELD_MAX: Duration = Duration::from_secs(90);
/// A write without an answer may still be carried out; for so long it is taken to be under way.
const LINGER: Duration = Duration::from_secs(25);

/// A write, with all that it needs when its client has left.
pub(crate) struct Write {
    worker: Arc<Worker>,
    active: Arc<Active>,
    authority: String,
    target: PathAndQuery,
    method: Method,
    headers: HeaderMap,
    peer_uri: Option<Box<str>>,
    /// How coherent what it changes has to be.
    pub(crate) consistency: Consistency,
}

/// What became of a write.
pub(crate) enum Written {
    /// The others must know and could not be told: it was not made.
    Refused(LogError),
    /// It was sent. With the position of the log that tells of it, if there is one.
    Sent(Result<Box<UpstreamResponse>, UpstreamError>, Option<Seq>),
}

impl Write {
    /// The write that a request is; `None` if there cannot be anything stored for it: its method is
    /// safe, its target is not cached, or it is a gRPC call, whose resource knows no GET.
    pub(crate) fn of(request: &RequestContext) -> Option<Self> {
        let is_grpc = |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        let headers = &request.parts.headers;
        if invalidate::is_safe(&request.parts.method)
            || headers.get(CONTENT_TYPE).is_some_and(is_grpc)
        {
            return None;
        }
        let mut write = Write {
            worker: Arc::clone(&request.worker),
            active: Arc::clone(&request.active),
            authority: request.routing.authority.clone(),
            target: request.target(),
            method: request.parts.method.clone(),
            headers: headers.clone(),
            peer_uri: request.routing.peer_uri.clone(),
            consistency: request.route().consistency,
        };
        let route = write.stored_by(write.target.path());
        let (cached, consistency) = (route.cache_enabled, route.consistency);
        write.consistency = write.consistency.max(consistency);
        cached.then_some(write)
    }

    /// Sends the request, and invalidates what it may have changed.
    pub(crate) async fn carry_out(self, call: Call) -> Written {
        let guard = match self.announce().await {
            Ok(guard) => guard,
            Err(error) => return Written::Refused(error),
        };
        let sent = self.worker.upstream.call(call);
        let sent = match &guard {
            None => sent.await,
            Some(_) => tokio::time::timeout(HELD_MAX, sent).await.unwrap_or_else(|_| {
                let millis = u64::try_from(HELD_MAX.as_millis()).unwrap_or(u64::MAX);
                Err(UpstreamError::TotalTimeout { millis })
            }),
        };
        let seen = self.purge_targets(guard, &sent).await;
        Written::Sent(sent.map(Box::new), seen)
    }

    /// Where pods must not disagree, all of them stop answering from what is stored for the target
    /// before the write is sent.
    async fn announce(&self) -> Result<Option<HoldGuard>, LogError> {
        let log = &self.worker.shared.log;
        let (Some(shared), false) = (log.as_shared(), self.consistency == Consistency::Eventual)
        else {
            return Ok(None);
        };
        // A write that is in nobody's log could be seen through this pod, and then be unseen
        // through another: no session could tell of it.
        let everywhere = self.consistency == Consistency::Strong;
        shared.hold(self.url_purge(self.target.as_str()), everywhere).await.map(Some)
    }

    async fn purge_targets(
        &self,
        guard: Option<HoldGuard>,
        sent: &Result<UpstreamResponse, UpstreamError>,
    ) -> Option<Seq> {
        let mut last = None;
        let succeeded = sent
            .as_ref()
            .is_ok_and(|upstream| invalidate::invalidates(&self.method, upstream.head.status));
        match guard {
            Some(guard) if sent.as_ref().is_err_and(UpstreamError::may_take_effect) => {
                guard.linger(LINGER)
            }
            Some(guard) => {
                self.count("url");
                note(&mut last, guard.complete().await);
            }
            None if succeeded => {
                note(&mut last, self.purge(self.url_purge(self.target.as_str())).await);
            }
            None => {}
        }
        let Some(head) = sent.as_ref().ok().map(|upstream| &upstream.head).filter(|_| succeeded)
        else {
            return last;
        };
        let target = self.target.as_str();
        for path in invalidate::further_targets(&self.authority, target, &head.headers) {
            note(&mut last, self.purge(self.url_purge(&path)).await);
        }
        for group in tags::invalidated_groups(&head.headers) {
            let request = PurgeRequest {
                matcher: Matcher::Tag(group),
                mode: Mode::Hard,
                by: "unsafe-method",
                reason: None,
                uri_digest: 0,
            };
            note(&mut last, self.purge(request).await);
        }
        last
    }

    /// The route by which responses for a path are stored.
    fn stored_by(&self, path: &str) -> &Route {
        self.active.snapshot.route(RouteQuery {
            host: &self.authority,
            path,
            method: &Method::GET,
            headers: &self.headers,
            peer: self.peer_uri.as_deref().and_then(Peer::parse),
        })
    }

    fn url_purge(&self, target: &str) -> PurgeRequest {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let route = self.stored_by(path);
        let target = RequestTarget { scheme: "http", authority: &self.authority, path, query };
        let uri = canonical_uri(target, &route.key);
        PurgeRequest {
            uri_digest: digest(&uri),
            matcher: Matcher::Url(String::from_utf8_lossy(&uri).into_owned()),
            mode: Mode::Hard,
            by: "unsafe-method",
            reason: None,
        }
    }

    fn count(&self, kind: &'static str) {
        self.worker.shared.metrics.count_purge(kind, Mode::Hard.as_str());
    }

    async fn purge(&self, request: PurgeRequest) -> Purged {
        self.count(request.matcher.kind());
        self.worker.shared.log.purge(request).await
    }
}

fn note(last: &mut Option<Seq>, purged: Purged) {
    if let Purged::Applied(Event { seq, .. }) = purged {
        *last = (*last).max(Some(seq));
    }
}
