//! Requests that change something: what is stored for their target is invalidated, by all pods, in
//! the way that the route's consistency asks for (RFC 9111 §4.4).
//!
//! A write runs in a task of its own: a client that leaves in the middle of it must not take the
//! invalidation along.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use outrigger_coherence::{
    Event, HoldGuard, LogError, Matcher, PurgeMode, PurgeRequest, Purged, Seq,
};
use outrigger_policy::values::Consistency;
use outrigger_policy::{Authority, RequestTarget, Snapshot, Url};
use outrigger_semantics::{invalidate, tags};

use crate::error::UpstreamError;
use crate::grpc;
use crate::matcher::target_matcher;
use crate::pipeline::request::RequestContext;
use crate::state::{Active, Worker};
use crate::upstream::{UpstreamRequest, UpstreamResponse};

/// Time limit of a write that was announced; shorter than the hold, which ends by itself.
const HELD_MAX: Duration = Duration::from_secs(90);
/// How long a write without an answer is taken to be under way, since it may still be carried out.
const LINGER: Duration = Duration::from_secs(25);

/// A write, with all that it needs when its client has left.
pub(crate) struct Write {
    worker: Arc<Worker>,
    active: Arc<Active>,
    /// As the client sent it: other pods may have other aliases.
    authority: String,
    target: PathAndQuery,
    method: Method,
    headers: HeaderMap,
    /// How coherent what it changes has to be.
    pub(crate) consistency: Consistency,
}

/// What became of a write.
pub(crate) enum Written {
    /// It could not be announced to the other pods, and was not sent.
    Refused(LogError),
    /// It was sent. With what the purge log tells of it.
    Sent(Result<Box<UpstreamResponse>, UpstreamError>, Told),
}

/// What the purge log tells of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// The position of its last event, if there is one.
    pub(crate) last: Option<Seq>,
    /// How many events it has.
    pub(crate) events: u64,
}

impl Told {
    fn note(&mut self, purged: Purged) {
        if let Purged::Applied(Event { seq, .. }) = purged {
            self.last = self.last.max(Some(seq));
            self.events += 1;
        }
    }
}

impl Write {
    /// The write that a request is; `None` if there cannot be anything stored for it: its method is
    /// safe, no route caches its target, or it is a gRPC call, whose resource knows no GET.
    pub(crate) fn of(request: &RequestContext) -> Option<Self> {
        let headers = &request.parts.headers;
        if invalidate::is_safe(&request.parts.method) || grpc::is_call(headers) {
            return None;
        }
        let (authority, target) = (sent_authority(request), request.target());
        let stored = RequestTarget::new(Authority::of_valid(authority), target.as_str());
        let routes = request.active.snapshot.possible_routes(stored);
        let caching = routes.iter().filter(|route| route.cache_enabled);
        let strictest = caching.map(|route| route.consistency).max()?;
        Some(Write {
            worker: Arc::clone(&request.worker),
            active: Arc::clone(&request.active),
            authority: authority.to_owned(),
            target,
            method: request.parts.method.clone(),
            headers: headers.clone(),
            consistency: request.route().consistency.max(strictest),
        })
    }

    /// Sends the request, and invalidates what it may have changed.
    pub(crate) async fn carry_out(self, call: UpstreamRequest) -> Written {
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
        let told = self.purge_targets(guard, &sent).await;
        Written::Sent(sent.map(Box::new), told)
    }

    /// Where pods must not disagree, all of them stop answering from what is stored for the target
    /// before the write is sent.
    async fn announce(&self) -> Result<Option<HoldGuard>, LogError> {
        let log = &self.worker.shared.log;
        let (Some(shared), false) = (log.as_redis(), self.consistency == Consistency::Eventual)
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
    ) -> Told {
        let mut told = Told::default();
        let succeeded = sent
            .as_ref()
            .is_ok_and(|upstream| invalidate::invalidates(&self.method, upstream.head.status));
        match guard {
            Some(guard) if sent.as_ref().is_err_and(UpstreamError::may_take_effect) => {
                guard.linger(LINGER)
            }
            Some(guard) => {
                self.count(guard.kind());
                told.note(guard.complete().await);
            }
            None if succeeded => {
                told.note(self.purge(self.url_purge(self.target.as_str())).await);
            }
            None => {}
        }
        let Some(head) = sent.as_ref().ok().map(|upstream| &upstream.head).filter(|_| succeeded)
        else {
            return told;
        };
        let target = self.target.as_str();
        let is_own = |url: &str| is_own_host(&self.active.snapshot, &self.authority, url);
        for path in invalidate::further_targets(is_own, target, &head.headers) {
            told.note(self.purge(self.url_purge(&path)).await);
        }
        for group in tags::invalidated_groups(&head.headers) {
            let request = PurgeRequest {
                matcher: Matcher::Tag(group),
                mode: PurgeMode::Hard,
                by: "unsafe-method",
                reason: None,
            };
            told.note(self.purge(request).await);
        }
        told
    }

    fn url_purge(&self, path_and_query: &str) -> PurgeRequest {
        let target = RequestTarget::new(Authority::of_valid(&self.authority), path_and_query);
        PurgeRequest {
            matcher: target_matcher(&self.active.snapshot, target, &self.headers),
            mode: PurgeMode::Hard,
            by: "unsafe-method",
            reason: None,
        }
    }

    fn count(&self, kind: &'static str) {
        self.worker.shared.metrics.count_purge(kind, PurgeMode::Hard.as_str());
    }

    async fn purge(&self, request: PurgeRequest) -> Purged {
        self.count(request.matcher.kind());
        self.worker.shared.log.purge(request).await
    }
}

/// Whether a URL in the response has the host of the request, by any of its names.
pub(super) fn is_own_host(snapshot: &Snapshot, authority: &str, url: &str) -> bool {
    let own = snapshot.service(Authority::of_valid(authority));
    let is_own = |target: RequestTarget<'_>| snapshot.service(target.authority) == own;
    Url::parse(url).is_ok_and(|url| url.targets().any(is_own))
}

/// The authority of a request before aliases, in the spelling of its client.
fn sent_authority(request: &RequestContext) -> &str {
    let absolute = request.parts.uri.authority().map(|authority| authority.as_str());
    let host =
        || request.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::trim);
    absolute.or_else(host).unwrap_or(&request.routing.authority)
}
