//! The side of a fetch that asks the upstream: validates, decides about storing by RFC 9111 §3, and
//! reports to the readers how it turned out. Handing out and storing the bytes is `store`'s part.
//!
//! Every fetch notes the position of the purge log before it begins, so that a purge that comes
//! while it runs also purges what it stores.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use outrigger_coherence::Seq;
use outrigger_guard::MissPermit;
use outrigger_policy::values::Consistency;
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::supersede::{Answer, Asker, Held};
use outrigger_semantics::{NotStored, Recency, UnixMillis, conditional, update};
use outrigger_store::Entry;
use outrigger_store::entry::LogSpan;
use outrigger_telemetry::Outcome;
use tokio::sync::oneshot;

use crate::coalesce::flight::Resolution;
use crate::coalesce::table::RegisteredFlight;
use crate::error::UpstreamError;
use crate::guard::{Urgency, forget_caller_deadline};
use crate::passed::Whose;
use crate::pipeline::fetch::outlive::Outlive;
use crate::pipeline::fetch::store::{Running, Storing};
use crate::pipeline::lookup;
use crate::pipeline::peers::{self, FetchLock, LockOutcome};
use crate::pipeline::request::{RequestContext, RequestView};
use crate::pipeline::stale_if_error::may_serve_on_error;
use crate::state::Shared;
use crate::upgrade::UNREQUESTED;
use crate::upstream::{InterimSender, UpstreamRequest, UpstreamResponse};

/// A response that only the leader gets, with the reason why it is not shared.
pub(crate) enum ForLeader {
    /// The response itself.
    Response(Box<UpstreamResponse>, NotStored),
    /// What is stored, under the fields of a 304 that may not be stored.
    Entry(Arc<Entry>),
}

/// The channel to the leader.
type Direct = oneshot::Sender<ForLeader>;

/// A fetch for the store, for the request with whose fields it is made.
pub(crate) struct Fetch {
    pub(super) request: Arc<RequestContext>,
    /// The stored response to validate.
    pub(super) stored: Option<Arc<Entry>>,
    /// Whether the request to the upstream carries validators of `stored`.
    validating: bool,
    /// Whether it is for a range.
    pub(super) ranged: bool,
    /// Whether there may have been holds that were not heard of when the fetch began.
    pub(super) unheard: bool,
    /// Whether other pods may want the same, and one should fetch for all.
    pub(super) for_peers: bool,
    /// The place among the misses under way, if it is one. Given back when the fetch is over.
    pub(super) miss: Option<MissPermit>,
    /// The right to fetch for all pods. Given back when the fetch is over.
    pub(super) lock: Option<FetchLock>,
}

/// What the upstream said.
enum Said {
    /// 304: what is stored is good, under these fields.
    Confirmed(Arc<Entry>, HeaderMap, Exchange),
    /// A response.
    Response(Box<UpstreamResponse>),
}

impl Fetch {
    /// A fetch that begins now, with a stored response to validate or without.
    pub(crate) fn new(request: &Arc<RequestContext>, stored: Option<Arc<Entry>>) -> Self {
        Fetch {
            request: Arc::clone(request),
            stored,
            validating: false,
            ranged: false,
            unheard: request.view().may_miss_holds(),
            for_peers: false,
            miss: None,
            lock: None,
        }
    }

    /// The request to the upstream. With a stored response it becomes a validation; without one it
    /// is made unconditional, unless it is for a range.
    fn upstream_request(
        &mut self,
        urgency: Urgency,
        interim: Option<InterimSender>,
    ) -> UpstreamRequest {
        let mut headers = self.request.upstream_headers();
        forget_caller_deadline(&mut headers);
        match &self.stored {
            Some(entry) => {
                self.validating = conditional::make_validation(&mut headers, &entry.headers);
            }
            None if self.ranged => {}
            None => conditional::strip_conditions(&mut headers),
        }
        let request = self.request.keyed_request(headers);
        UpstreamRequest { method: Method::GET, urgency, interim, ..request }
    }

    pub(super) fn shared(&self) -> &Shared {
        self.request.shared()
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.shared().clock.now()
    }

    /// What the fetch asks of the store now: it is always for GET.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView { method: &Method::GET, now: self.now(), ..self.request.view() }
    }

    fn storing(&self) -> Storing<'_> {
        Storing {
            request: self.view(),
            unheard: self.unheard,
            client: self.request.forwarded_for(),
            lock: self.lock.as_ref(),
        }
    }

    /// Whether what is stored is stale, and so any fresh copy better than it.
    pub(crate) fn is_stale(&self, now: UnixMillis) -> bool {
        self.stored.as_ref().is_none_or(|stored| !stored.lifetimes.is_fresh(now))
    }

    /// How far refreshes of responses that expired together are spread.
    pub(crate) fn refresh_jitter(&self) -> Duration {
        self.request.guard.rules.refresh_jitter
    }

    /// Runs the fetch to its end, or until it is not worth going on without clients.
    pub(crate) async fn run(
        mut self,
        urgency: Urgency,
        interim: Option<InterimSender>,
        flight: RegisteredFlight,
        direct: Option<Direct>,
    ) {
        let mut outlive = Outlive::of(&self.request, &flight, self.ranged);
        // Where the guard refuses the request, no other pod is asked or waited for.
        let refused = self.request.guard.refusal();
        if self.for_peers && refused.is_none() {
            let view = self.view();
            let usable = |entry: &Arc<Entry>| lookup::is_usable(view, entry);
            let lock = tokio::select! {
                lock = peers::lock(view, &usable) => lock,
                () = outlive.over(flight.flight()) => return,
            };
            match lock {
                LockOutcome::Fetch(lock) => self.lock = lock,
                // It was judged when it came; a purge may have met it since.
                LockOutcome::Fetched(entry) if !usable(&entry) => {}
                LockOutcome::Fetched(entry) => {
                    self.shared().remember(&entry);
                    flight.resolve(Resolution::Entry(entry, Outcome::Hit));
                    return flight.finish(true);
                }
            }
        }
        let request = self.upstream_request(urgency, interim);
        let asked = match refused {
            Some(refusal) => {
                self.request.guard.count_refused(&refusal);
                Err(refusal)
            }
            None => tokio::select! {
                asked = self.ask(request) => asked,
                () = outlive.over(flight.flight()) => return,
            },
        };
        let born = flight.born_seq();
        let log = LogSpan { born, seen: self.seen(born).await };
        match asked {
            Err(error) => self.failed(&flight, error),
            Ok(Said::Confirmed(stored, newer, exchange)) => {
                self.shared().watch.answered(self.request.key.digest());
                self.confirmed(flight, &stored, &newer, exchange, log, direct);
            }
            Ok(Said::Response(upstream)) => {
                self.responded(flight, *upstream, log, direct, outlive).await;
            }
        }
    }

    async fn ask(&self, request: UpstreamRequest) -> Result<Said, UpstreamError> {
        let again = request.again();
        let mut upstream = self.request.worker.upstream.call(request).await?;
        if upstream.head.status == StatusCode::NOT_MODIFIED
            && self.validating
            && let Some(stored) = &self.stored
        {
            if update::selects(&upstream.head.headers, &stored.headers) {
                let stored = Arc::clone(stored);
                return Ok(Said::Confirmed(stored, upstream.head.headers, upstream.exchange));
            }
            // It speaks of a representation that we do not have (RFC 9111 §4.3.4).
            let mut again = again;
            conditional::strip_conditions(&mut again.headers);
            upstream = self.request.worker.upstream.call(again).await?;
        }
        if upstream.head.status == StatusCode::SWITCHING_PROTOCOLS {
            let endpoint = "the upstream".to_owned();
            return Err(UpstreamError::Invalid { endpoint, reason: UNREQUESTED.to_owned() });
        }
        Ok(Said::Response(Box::new(upstream)))
    }

    /// The log position that the response may reflect. Asks the log on causal routes only.
    async fn seen(&self, born: Seq) -> Seq {
        match self.request.route().consistency {
            Consistency::Causal => self.shared().log.seen().await.max(born),
            _ => born,
        }
    }

    /// No response: a stored one may be served instead.
    fn failed(&self, flight: &RegisteredFlight, error: UpstreamError) {
        if error.kind().is_some() {
            self.back_off();
        }
        if !self.serve_stale(flight, error.stale_outcome()) {
            tracing::debug!(%error, key = %self.request.key.display(), "fetch failed");
            flight.resolve(Resolution::Failed(Arc::new(error)));
        }
    }

    async fn responded(
        self,
        mut flight: RegisteredFlight,
        upstream: UpstreamResponse,
        log: LogSpan,
        direct: Option<Direct>,
        outlive: Outlive,
    ) {
        let status = upstream.head.status;
        if self.request.route().serves_stale_for(status) {
            self.back_off();
            if self.serve_stale(&flight, Outcome::StaleIfError) {
                return;
            }
        }
        let storing = self.storing();
        match storing.judge(&upstream) {
            Ok(storable) => {
                let on_end = |ended, why| match (ended, why) {
                    (true, _) => self.shared().watch.answered(self.request.key.digest()),
                    // What is too large may also have been given up on our side.
                    (false, Some(NotStored::TooLarge)) => {}
                    (false, _) => self.back_off(),
                };
                let rest = async |of: &HeaderMap, had, length| self.rest(of, had, length).await;
                let running = Running { log, flight, outlive };
                storing.stream(storable, upstream, running, on_end, rest).await;
            }
            Err(why) => {
                if !status.is_server_error() {
                    self.shared().watch.answered(self.request.key.digest());
                }
                flight.unlist();
                self.release(&flight, upstream, why, direct);
            }
        }
    }

    /// What is stored is not validated again at once.
    pub(super) fn back_off(&self) {
        let Some(stored) = &self.stored else { return };
        let times = &stored.lifetimes;
        let lifetime = times.fresh_until.millis_since(times.born).max(0).unsigned_abs();
        let (rules, usual) = (self.request.route().guard.backoff, Duration::from_millis(lifetime));
        self.shared().watch.validation_failed(self.request.key.digest(), rules, usual);
    }

    fn serve_stale(&self, flight: &RegisteredFlight, outcome: Outcome) -> bool {
        let Some(stored) = &self.stored else { return false };
        let allowed = may_serve_on_error(self.view(), stored);
        if allowed {
            flight.resolve(Resolution::Entry(Arc::clone(stored), outcome));
            flight.finish(true);
        }
        allowed
    }

    /// A 304: the stored response lives on under new fields (RFC 9111 §4.3.4).
    fn confirmed(
        &self,
        mut flight: RegisteredFlight,
        stored: &Entry,
        newer: &HeaderMap,
        exchange: Exchange,
        log: LogSpan,
        direct: Option<Direct>,
    ) {
        let storing = self.storing();
        match storing.freshened(stored, newer, exchange, log) {
            Ok(entry) => {
                storing.keep(&entry);
                flight.resolve(Resolution::Entry(entry, Outcome::Revalidated));
            }
            Err((entry, why)) => {
                // It answers only the request that was sent.
                self.shared().metrics.count_store(why.as_str());
                if why.is_of_the_response() {
                    self.outdate(StatusCode::OK, entry.recency, why);
                }
                flight.unlist();
                if let Some(direct) = direct {
                    // A leader that has left needs no answer.
                    let _ = direct.send(ForLeader::Entry(entry));
                }
                flight.resolve(Resolution::Released);
            }
        }
        flight.finish(true);
    }

    /// Only what the origin says about the response for everybody counts for everybody: not what
    /// one client brought about by its credentials or its range.
    fn is_personal(&self, why: NotStored) -> bool {
        let headers = &self.request.parts.headers;
        let credentials = self.request.route().cookies.has_credentials(headers);
        self.ranged || credentials || !why.is_of_the_response()
    }

    /// Ends what uses of the stored response a complete answer ends that may not be stored.
    fn outdate(&self, status: StatusCode, recency: Recency, why: NotStored) -> Held {
        let Some(stored) = &self.stored else { return Held::Nothing };
        let asker = Asker::of_get(status, self.is_personal(why));
        self.storing().answered(stored, recency, Answer::of(status, Err(why)), asker).0
    }

    /// A response that cannot be shared goes to the leader alone; the others are sent on.
    fn release(
        &self,
        flight: &RegisteredFlight,
        upstream: UpstreamResponse,
        why: NotStored,
        direct: Option<Direct>,
    ) {
        let shared = self.shared();
        shared.metrics.count_store(why.as_str());
        if let Some(lock) = &self.lock {
            lock.mark_uncacheable();
        }
        let status = upstream.head.status;
        let recency = Recency::of(&upstream.head.headers, upstream.exchange);
        let held = self.outdate(status, recency, why);
        let for_all = Asker::of_get(status, self.is_personal(why)) == Asker::Anyone;
        let uncacheable = match &self.stored {
            None => !self.is_personal(why) && !status.is_server_error(),
            Some(_) => for_all && !status.is_server_error() && held != Held::Newer,
        };
        if uncacheable {
            shared.passed.note(self.request.key.digest(), why, Whose::Everybody, self.now());
        }
        let credentials = self.request.route().cookies.has_credentials(&self.request.parts.headers);
        if credentials && !self.ranged && why.is_of_the_response() {
            shared.passed.note(self.request.key.digest(), why, Whose::OneClient, self.now());
        }
        if let Some(direct) = direct {
            // A leader that has left loses its response; nobody else could use it.
            let _ = direct.send(ForLeader::Response(Box::new(upstream), why));
        }
        flight.resolve(Resolution::Released);
    }
}
