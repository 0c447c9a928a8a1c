//! One request, in three shapes: as it was received, as a question to the store, and owned by the
//! stages that wait for something.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use outrigger_policy::explain::coalesce_decision;
use outrigger_policy::values::Consistency;
use outrigger_policy::{CacheKey, Route, Side};
use outrigger_semantics::conditional::is_conditional;
use outrigger_semantics::storable::RequestFacts;
use outrigger_semantics::{NotStored, RequestDirectives, UnixMillis};
use outrigger_store::lookup::Wanted;

use crate::client::ClientConnection;
use crate::error::UpstreamError;
use crate::guard::{CallerDeadline, RouteGuard};
use crate::pipeline::admit::Admitted;
use crate::pipeline::sharing::scope;
use crate::state::{Active, Shared, Worker};
use crate::upstream::Destination;

/// A request as it was received, whatever became of it: what is recorded at its end.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) active: &'a Active,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) now: UnixMillis,
}

impl<'a> Received<'a> {
    pub(crate) fn new<B>(
        shared: &'a Shared,
        active: &'a Active,
        request: &'a Request<B>,
        now: UnixMillis,
    ) -> Self {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        Received { shared, active, method, uri, headers, now }
    }
}

/// What a request asks of the store.
#[derive(Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) route: &'a Route,
    pub(crate) key: &'a CacheKey,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) directives: &'a RequestDirectives,
    /// Whether it may have conditions or ask for a range.
    pub(crate) conditional: bool,
    pub(crate) now: UnixMillis,
}

impl<'a> RequestView<'a> {
    /// The question to tiers that several pods share.
    pub(crate) fn wanted(&self) -> Wanted<'a> {
        Wanted {
            digest: self.key.digest(),
            key: self.key.text(),
            headers: self.headers,
            rules_fingerprint: self.route.rules_fingerprint,
            scope: scope(self.route),
        }
    }

    /// Whether shared tiers may be asked. What other pods stored cannot be judged before the purge
    /// log has been read.
    pub(crate) fn asks_shared_tiers(&self) -> bool {
        self.route.redis.enabled && self.shared.log.knows_others()
    }

    /// Whether there may be holds that this pod has not heard of, on a route where they count.
    pub(crate) fn may_miss_holds(&self) -> bool {
        self.route.consistency != Consistency::Eventual && self.shared.log.may_miss_holds()
    }

    /// Why requests like it are passed on without a look into the store; `None` if they are not.
    pub(crate) fn passed_since(&self) -> Option<NotStored> {
        let credentials = || self.route.cookies.has_credentials(self.headers);
        self.shared.passed.why(self.key.digest(), self.now, credentials)
    }

    /// Whether it has a cookie that may select the response of one user, and that the key does not
    /// tell apart.
    pub(crate) fn is_personal(&self) -> bool {
        self.route.cookies.has_personal(self.headers) && !self.key.holds_identity()
    }

    /// What decides about storing a response to it (RFC 9111 §3).
    pub(crate) fn facts(&self) -> RequestFacts<'a> {
        RequestFacts {
            method: self.method,
            headers: self.headers,
            directives: *self.directives,
            identity_in_key: self.key.holds_identity(),
            personal_cookies: self.route.cookies.has_personal(self.headers),
        }
    }
}

/// What a request asks for, and when it came.
pub(crate) struct Asked {
    pub(crate) key: CacheKey,
    pub(crate) directives: RequestDirectives,
    conditional: bool,
    pub(crate) now: UnixMillis,
}

impl Asked {
    pub(crate) fn of(admitted: &Admitted<'_>, headers: &HeaderMap, now: UnixMillis) -> Self {
        let route = admitted.route;
        let directives = route.request_directives(headers);
        let arrival = admitted.arrived.arrival;
        let key = CacheKey::build(admitted.target, headers, &route.key, arrival);
        Asked { key, directives, conditional: is_conditional(headers), now }
    }

    /// The question to the store, while the request is only looked at.
    pub(crate) fn view<'a>(
        &'a self,
        shared: &'a Shared,
        route: &'a Route,
        method: &'a Method,
        headers: &'a HeaderMap,
    ) -> RequestView<'a> {
        let Asked { key, directives, conditional, now } = self;
        let conditional = *conditional;
        RequestView { shared, route, key, method, headers, directives, conditional, now: *now }
    }
}

/// Where a request goes, owned.
pub(crate) struct Routing {
    pub(crate) route: Arc<Route>,
    /// Host and port that the client asked for, or the service that they are a name of, as the key
    /// has them.
    pub(crate) authority: String,
    /// The same in the client's own spelling, if that is another.
    sent_authority: Option<String>,
    /// Side and port of the pod by which it came in; `None` outside a mesh.
    pub(crate) entry: Option<(Side, u16)>,
    /// The address that Envoy named; `None` for the configured upstream.
    pub(crate) to: Option<Destination>,
    /// Whether it asks to change the protocol of its connection.
    pub(crate) upgrade: bool,
}

impl Routing {
    pub(crate) fn of(admitted: &Admitted<'_>, version: Version) -> Self {
        let http2 = version == Version::HTTP_2;
        let arrived = admitted.arrived;
        let authority = admitted.target.authority.canonical();
        let sent = admitted.target.authority.as_sent();
        Routing {
            route: Arc::clone(admitted.route),
            sent_authority: matches!(authority, Cow::Owned(_)).then(|| sent.to_owned()),
            authority: authority.into_owned(),
            entry: arrived.arrival.entry,
            to: arrived.destination.map(|address| Destination { address, http2 }),
            upgrade: admitted.upgrade,
        }
    }

    /// Host and port in the client's own spelling, if that is another than the key's: for requests
    /// that the store has no part in.
    pub(crate) fn sent_authority(&self) -> Option<&str> {
        self.sent_authority.as_deref()
    }
}

/// A request that waits for something. Nothing of it changes any more, so that the fetch that it
/// starts shares it, and may outlive it.
pub(crate) struct RequestContext {
    pub(crate) worker: Arc<Worker>,
    pub(crate) active: Arc<Active>,
    pub(crate) client: ClientConnection,
    pub(crate) parts: Parts,
    pub(crate) routing: Routing,
    pub(crate) key: CacheKey,
    pub(crate) directives: RequestDirectives,
    conditional: bool,
    pub(crate) now: UnixMillis,
    pub(crate) guard: Arc<RouteGuard>,
    /// When its caller stops waiting, where that counts.
    pub(crate) caller: Option<CallerDeadline>,
    /// Whether a fetch for it may be shared with other requests.
    pub(crate) collapsible: bool,
}

/// What can be handed on only once: the rest of the client's message, and its connection.
pub(crate) struct Payload {
    pub(crate) body: Option<Incoming>,
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl RequestContext {
    /// Takes a request over from the stages that only looked at it.
    pub(crate) fn new(
        worker: &Arc<Worker>,
        active: Arc<Active>,
        client: &ClientConnection,
        request: Request<Incoming>,
        routing: Routing,
        asked: Asked,
    ) -> (Self, Payload) {
        let (mut parts, body) = request.into_parts();
        let Asked { key, directives, conditional, now } = asked;
        let guard =
            active.guard(&routing.route, routing.entry.map(|entry| (entry, &*routing.authority)));
        let caller = guard.rules.honor_caller.then(|| CallerDeadline::of(&parts.headers)).flatten();
        let body = (!body.is_end_stream()).then_some(body);
        let payload = Payload { body, upgrade: parts.extensions.remove::<OnUpgrade>() };
        let (worker, client) = (Arc::clone(worker), client.clone());
        let collapsible = coalesce_decision(&routing.route, &parts.headers, &key).yes;
        let context = RequestContext {
            worker,
            active,
            client,
            parts,
            routing,
            key,
            directives,
            conditional,
            now,
            guard,
            caller,
            collapsible,
        };
        (context, payload)
    }

    /// The process that it runs in.
    pub(crate) fn shared(&self) -> &Shared {
        &self.worker.shared
    }

    /// Its route.
    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.routing.route
    }

    /// What is recorded of it.
    pub(crate) fn received(&self) -> Received<'_> {
        Received {
            shared: self.shared(),
            active: &self.active,
            method: &self.parts.method,
            uri: &self.parts.uri,
            headers: &self.parts.headers,
            now: self.now,
        }
    }

    /// What it asks of the store, at the moment when it came.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            shared: self.shared(),
            route: &self.routing.route,
            key: &self.key,
            method: &self.parts.method,
            headers: &self.parts.headers,
            directives: &self.directives,
            conditional: self.conditional,
            now: self.now,
        }
    }

    /// Path and query as the client sent them. A URI without a path has an empty one, which is sent
    /// as `/` (RFC 9112 §3.2.1).
    pub(crate) fn target(&self) -> PathAndQuery {
        let slash = || PathAndQuery::from_static("/");
        match self.parts.uri.path_and_query() {
            Some(target) if target.as_str().starts_with(['/', '*']) => target.clone(),
            Some(target) => format!("/{}", target.as_str()).parse().unwrap_or_else(|_| slash()),
            None => slash(),
        }
    }

    /// Path and query as the key holds them: what is not in the key is not sent upstream either.
    pub(crate) fn keyed_target(&self) -> PathAndQuery {
        let target = self.target();
        let rules = &self.routing.route.key.query;
        let Some(query) = target.query().filter(|_| !rules.is_identity()) else { return target };
        let query = rules.apply(query);
        let text = if query.is_empty() {
            target.path().to_owned()
        } else {
            format!("{}?{query}", target.path())
        };
        text.parse().unwrap_or(target)
    }

    /// Waits for `work`, but not longer than the caller does.
    ///
    /// # Errors
    /// [`UpstreamError::CallerDeadline`] when the caller's time is over.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, UpstreamError> {
        let Some(caller) = self.caller else { return Ok(work.await) };
        let late = |_| UpstreamError::CallerDeadline { millis: caller.millis };
        tokio::time::timeout_at(caller.at, work).await.map_err(late)
    }
}
