//! A request that has to wait for something: everything that its stages need, owned.

use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use outrigger_coherence::Seq;
use outrigger_policy::values::Consistency;
use outrigger_policy::{CacheKey, Route, Side};
use outrigger_semantics::cache_status::CacheStatus;
use outrigger_semantics::{RequestDirectives, UnixMillis};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::body::response::ResponseBody;
use crate::client::ClientConnection;
use crate::guard::{CallerDeadline, RouteGuard};
use crate::mesh::Arrived;
use crate::pipeline::admit::Admitted;
use crate::pipeline::respond;
use crate::pipeline::trust::Distrust;
use crate::state::{Active, Worker};
use crate::upstream::Named;

/// A response with its outcome.
pub(crate) struct Answer {
    pub(crate) response: Response<ResponseBody>,
    pub(crate) outcome: Outcome,
    /// Position of the purge log that the response may reflect, where that is known.
    pub(crate) seen: Option<Seq>,
}

impl Answer {
    pub(crate) fn new(response: Response<ResponseBody>, outcome: Outcome) -> Self {
        Answer { response, outcome, seen: None }
    }
}

/// What the first stage found out about where a request goes, owned.
pub(crate) struct Way {
    authority: String,
    entry: Option<(Side, u16)>,
    to: Option<Named>,
    peer_uri: Option<Box<str>>,
    upgrade: bool,
}

impl Way {
    pub(crate) fn of<B>(admitted: &Admitted<'_>, request: &Request<B>) -> Self {
        let http2 = request.version() == http::Version::HTTP_2;
        let Arrived { destination, arrival } = admitted.arrived;
        Way {
            authority: admitted.authority.to_owned(),
            entry: arrival.entry,
            to: destination.map(|address| Named { address, http2 }),
            peer_uri: arrival.peer.map(|peer| peer.uri().into()),
            upgrade: admitted.upgrade,
        }
    }
}

/// A request on its way through the slower stages.
pub(crate) struct Job {
    pub(crate) worker: Arc<Worker>,
    pub(crate) active: Arc<Active>,
    pub(crate) route: Arc<Route>,
    pub(crate) peer: ClientConnection,
    pub(crate) parts: Parts,
    pub(crate) body: Option<Incoming>,
    pub(crate) authority: String,
    /// Where Envoy says that it goes; `None` for the configured upstream.
    pub(crate) to: Option<Named>,
    /// The SPIFFE URI of the authenticated caller.
    pub(crate) peer_uri: Option<Box<str>>,
    pub(crate) key: CacheKey,
    pub(crate) directives: RequestDirectives,
    pub(crate) now: UnixMillis,
    pub(crate) upgrade: bool,
    pub(crate) guard: Arc<RouteGuard>,
    /// When its caller stops waiting, where that counts.
    pub(crate) caller: Option<CallerDeadline>,
    /// Why what is stored may not answer it.
    pub(crate) distrust: Option<Distrust>,
    /// How coherent its answer has to be: as the route says, or as what it changes does.
    pub(crate) consistency: Consistency,
}

impl Job {
    #[expect(clippy::too_many_arguments, reason = "called once, with what the first stages found")]
    pub(crate) fn new(
        worker: &Arc<Worker>,
        active: Arc<Active>,
        route: Arc<Route>,
        peer: &ClientConnection,
        request: Request<Incoming>,
        way: Way,
        key: CacheKey,
        directives: RequestDirectives,
        now: UnixMillis,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let body = (!body.is_end_stream()).then_some(body);
        let guard = active.guard(&route, way.entry.map(|entry| (entry, &*way.authority)));
        let caller = guard.rules.honor_caller.then(|| CallerDeadline::of(&parts.headers)).flatten();
        Job {
            worker: Arc::clone(worker),
            active,
            guard,
            caller,
            consistency: route.consistency,
            route,
            peer: peer.clone(),
            parts,
            body,
            authority: way.authority,
            to: way.to,
            peer_uri: way.peer_uri,
            upgrade: way.upgrade,
            key,
            directives,
            now,
            distrust: None,
        }
    }

    /// Path and query as the client sent them.
    pub(crate) fn target(&self) -> PathAndQuery {
        match self.parts.uri.path_and_query() {
            Some(target) if !target.path().is_empty() => target.clone(),
            _ => PathAndQuery::from_static("/"),
        }
    }

    /// Path and query as the key holds them: what is not in the key is not sent upstream either.
    pub(crate) fn keyed_target(&self) -> PathAndQuery {
        let target = self.target();
        let rules = &self.route.key.query;
        let Some(query) = target.query().filter(|_| !rules.is_identity()) else { return target };
        let query = rules.apply(query);
        let text = if query.is_empty() {
            target.path().to_owned()
        } else {
            format!("{}?{query}", target.path())
        };
        text.parse().unwrap_or(target)
    }

    /// A response from a stored one.
    pub(crate) fn serve(&self, entry: &Entry, outcome: Outcome) -> Answer {
        let status =
            respond::status_of_entry(&self.worker.shared, entry, self.now, outcome, &self.key);
        let response =
            respond::serve_entry(entry, &self.parts.method, &self.parts.headers, self.now, status);
        Answer { response, outcome, seen: Some(entry.seen_seq) }
    }

    /// Writes `Cache-Status` into a response.
    pub(crate) fn tell(&self, response: &mut Response<ResponseBody>, status: CacheStatus<'_>) {
        let key = self.worker.shared.settings.show_key.then(|| self.key.display());
        let status = CacheStatus { key: key.as_deref(), ..status };
        respond::append_status(response.headers_mut(), &status);
    }
}
