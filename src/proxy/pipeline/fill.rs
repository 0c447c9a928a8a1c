//! The producing side of a fetch: ask the upstream, decide about storing by RFC 9111 §3, and tell
//! the readers how it turned out. Handing out and storing the bytes is `store`'s part.
//!
//! Every fetch notes the position of the purge log before it begins, so that a purge that comes
//! while it runs voids what it stores.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, StatusCode};
use outrigger_coherence::{Seq, Verdict};
use outrigger_guard::MissPermit;
use outrigger_policy::values::Consistency;
use outrigger_policy::{CacheKey, Route};
use outrigger_semantics::partial;
use outrigger_semantics::storable::{self, RequestView};
use outrigger_semantics::{
    NotStored, RequestDirectives, Stored, UnixMillis, Variant, conditional, update,
};
use outrigger_store::Entry;
use outrigger_store::entry::LogSpan;
use outrigger_telemetry::Outcome;
use tokio::sync::oneshot;

use crate::coalesce::flight::Resolution;
use crate::coalesce::table::RegisteredFlight;
use crate::guard::forget_caller_deadline;
use crate::headers::from_upstream;
use crate::pipeline::fleet::{self, Claimed, Inquiry, Turn, share_rules};
use crate::pipeline::job::Job;
use crate::pipeline::store::Storing;
use crate::state::Worker;
use crate::upstream::{Call, UpstreamError, UpstreamResponse};

/// What belongs to the leader alone, with the reason.
pub(crate) enum Own {
    /// The response itself.
    Response(Box<UpstreamResponse>, NotStored),
    /// What is stored, under the fields of a 304 that may not be stored.
    Entry(Arc<Entry>),
}

/// Where it goes.
type Direct = oneshot::Sender<Own>;

/// A fetch to be run.
pub(crate) struct Fill {
    worker: Arc<Worker>,
    route: Arc<Route>,
    key: CacheKey,
    /// The client's fields: they select the variant.
    request: HeaderMap,
    directives: RequestDirectives,
    stored: Option<Arc<Entry>>,
    validating: bool,
    ranged: bool,
    /// Whether there may have been holds that were not heard of when the fetch began.
    unheard: bool,
    /// Whether other pods may want the same, and one should fetch for all.
    pub(crate) for_all: bool,
    /// The place among the misses under way, if it is one.
    pub(crate) miss: Option<MissPermit>,
    pub(crate) call: Call,
}

impl Fill {
    /// A fetch for a job. With a stored response the request becomes a validation; without one
    /// it is made unconditional, unless it is for a range.
    pub(crate) fn of(job: &Job, stored: Option<Arc<Entry>>, ranged: bool) -> Self {
        let mut headers = job.upstream_headers();
        forget_caller_deadline(&mut headers);
        let mut validating = false;
        match &stored {
            Some(entry) => validating = conditional::make_validation(&mut headers, &entry.headers),
            None if ranged => {}
            None => conditional::strip_conditions(&mut headers),
        }
        Fill {
            worker: Arc::clone(&job.worker),
            route: Arc::clone(&job.route),
            key: job.key.clone(),
            request: job.parts.headers.clone(),
            directives: job.directives,
            stored,
            validating,
            ranged,
            unheard: job.route.consistency != Consistency::Eventual
                && job.worker.shared.log.may_miss_holds(),
            for_all: false,
            miss: None,
            call: job.keyed_call(headers),
        }
    }

    /// Whether what is stored is stale, and so any fresh copy better than it.
    pub(crate) fn is_stale(&self, now: UnixMillis) -> bool {
        self.stored.as_ref().is_none_or(|stored| !stored.lifetimes.is_fresh(now))
    }

    pub(crate) fn inquiry(&self) -> Inquiry<'_> {
        Inquiry {
            shared: &self.worker.shared,
            route: &self.route,
            key: &self.key,
            headers: &self.request,
            directives: &self.directives,
            now: self.worker.shared.clock.now(),
        }
    }

    /// Runs the fetch to its end, or until nobody waits for it.
    pub(crate) async fn run(self, mut listed: RegisteredFlight, direct: Option<Direct>) {
        let born_seq = listed.born_seq();
        let mut claimed = None;
        // No other pod is waited for, and no question asked, where the answer is no.
        let refused = self.call.guard.refusal();
        if self.for_all && refused.is_none() {
            let turn = tokio::select! {
                turn = fleet::turn(self.inquiry()) => turn,
                () = Arc::clone(listed.flight()).abandoned() => return,
            };
            match turn {
                Turn::Ours(ours) => claimed = ours,
                Turn::Fetched(entry) => {
                    listed.resolve(Resolution::Entry(entry, Outcome::Hit));
                    return listed.finish(true);
                }
            }
        }
        let (mut context, call) = self.split();
        context.claimed = claimed;
        let answered = match refused {
            Some(refusal) => {
                call.guard.count_refused(&refusal);
                Err(refusal)
            }
            None => tokio::select! {
                answered = context.ask(call) => answered,
                () = Arc::clone(listed.flight()).abandoned() => return,
            },
        };
        let log = LogSpan { born: born_seq, seen: context.seen(born_seq).await };
        match answered {
            Err(error) => context.failed(&listed, error),
            Ok(Asked::Confirmed(headers, exchange)) => {
                context.worker.shared.watch.answered(context.key.digest());
                context.confirmed(&mut listed, &headers, exchange, log, direct);
            }
            Ok(Asked::Response(upstream)) => {
                if context.stale_instead(&listed, upstream.head.status) {
                    return;
                }
                match context.judge(*upstream, log) {
                    Ok(storing) => storing.stream(&context, listed).await,
                    Err(refused) => {
                        let (upstream, why) = *refused;
                        if !upstream.head.status.is_server_error() {
                            context.worker.shared.watch.answered(context.key.digest());
                        }
                        listed.unlist();
                        context.release(&listed, upstream, why, direct);
                    }
                }
            }
        }
    }

    pub(crate) fn split(self) -> (Context, Call) {
        let context = Context {
            worker: self.worker,
            route: self.route,
            key: self.key,
            request: self.request,
            directives: self.directives,
            stored: self.stored,
            validating: self.validating,
            ranged: self.ranged,
            claimed: None,
            unheard: self.unheard,
            _miss: self.miss,
        };
        (context, self.call)
    }
}

/// What a fetch needs besides its call.
pub(crate) struct Context {
    pub(crate) worker: Arc<Worker>,
    pub(super) route: Arc<Route>,
    pub(crate) key: CacheKey,
    pub(crate) request: HeaderMap,
    pub(super) directives: RequestDirectives,
    pub(super) stored: Option<Arc<Entry>>,
    validating: bool,
    ranged: bool,
    /// The right to fetch for all pods, given back when the fetch is over.
    claimed: Option<Claimed>,
    /// Whether there may have been holds that were not heard of when the fetch began.
    unheard: bool,
    /// Held until the fetch is over.
    _miss: Option<MissPermit>,
}

/// What the upstream said.
enum Asked {
    /// 304: what is stored is good, under these fields.
    Confirmed(HeaderMap, outrigger_semantics::freshness::Exchange),
    /// A response.
    Response(Box<UpstreamResponse>),
}

impl Context {
    async fn ask(&self, call: Call) -> Result<Asked, UpstreamError> {
        let again = call.again();
        let mut upstream = self.worker.upstream.call(call).await?;
        if upstream.head.status == StatusCode::NOT_MODIFIED
            && self.validating
            && let Some(stored) = &self.stored
        {
            self.clean(&mut upstream);
            if update::selects(&upstream.head.headers, &stored.headers) {
                return Ok(Asked::Confirmed(upstream.head.headers, upstream.exchange));
            }
            // It speaks of a representation that we do not have (RFC 9111 §4.3.4).
            let mut again = again;
            conditional::strip_conditions(&mut again.headers);
            upstream = self.worker.upstream.call(again).await?;
        }
        if upstream.head.status == StatusCode::SWITCHING_PROTOCOLS {
            let reason = "a 101 that nobody asked for".to_owned();
            return Err(UpstreamError::Invalid { endpoint: "the upstream".to_owned(), reason });
        }
        Ok(Asked::Response(Box::new(upstream)))
    }

    /// What the response may reflect: only where clients carry sessions it costs a question.
    async fn seen(&self, born: Seq) -> Seq {
        match self.route.consistency {
            Consistency::Causal => self.worker.shared.log.seen().await.max(born),
            _ => born,
        }
    }

    fn clean(&self, upstream: &mut UpstreamResponse) {
        let identity = &self.worker.shared.identity;
        let version = upstream.head.version;
        let now = upstream.exchange.responded_at;
        from_upstream(&mut upstream.head.headers, version, identity, now);
    }

    pub(crate) fn request(&self) -> RequestView<'_> {
        RequestView {
            method: &http::Method::GET,
            headers: &self.request,
            directives: self.directives,
            identity_in_key: self.key.holds_identity(),
        }
    }

    fn has_credentials(&self) -> bool {
        self.request.contains_key(AUTHORIZATION) || self.request.contains_key(COOKIE)
    }

    /// The rules by which is stored.
    pub(crate) fn epoch(&self) -> u64 {
        self.route.epoch
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.worker.shared.clock.now()
    }

    /// A 304: the stored response lives on under new fields (RFC 9111 §4.3.4).
    fn confirmed(
        &self,
        listed: &mut RegisteredFlight,
        newer: &HeaderMap,
        exchange: outrigger_semantics::freshness::Exchange,
        log: LogSpan,
        direct: Option<Direct>,
    ) {
        let Some(stored) = &self.stored else { return };
        let headers = update::updated(&stored.headers, newer);
        let decided =
            storable::decide(self.request(), stored.status, &headers, exchange, &self.route.store);
        let variant = Variant::of(&headers, &self.request);
        match decided {
            Ok(Stored { lifetimes, omit }) => {
                let mut entry =
                    stored.freshened(&headers, &omit, variant, lifetimes, log, self.now());
                entry.policy_epoch = self.route.epoch;
                let entry = Arc::new(entry);
                self.keep(&entry);
                listed.resolve(Resolution::Entry(entry, Outcome::Revalidated));
            }
            Err(why) => {
                // It answers the request that was sent, and nobody else's.
                let shared = &self.worker.shared;
                shared.metrics.count_store(why.as_str());
                shared.memory.remove(self.key.digest());
                listed.unlist();
                let times = stored.lifetimes;
                let entry = stored.freshened(&headers, &[], variant, times, log, self.now());
                if let Some(direct) = direct {
                    // A leader that has left needs no answer.
                    let _ = direct.send(Own::Entry(Arc::new(entry)));
                }
                listed.resolve(Resolution::Released);
            }
        }
        listed.finish(true);
    }

    /// Decides whether a response may be stored.
    fn judge(
        &self,
        mut upstream: UpstreamResponse,
        log: LogSpan,
    ) -> Result<Storing, Box<(UpstreamResponse, NotStored)>> {
        // A copy with the fields as they will be stored; what is passed on is cleaned later.
        let original = upstream.head.headers.clone();
        self.clean(&mut upstream);
        let status = upstream.head.status;
        let headers = std::mem::replace(&mut upstream.head.headers, original);
        let decided = storable::decide(
            self.request(),
            status,
            &headers,
            upstream.exchange,
            &self.route.store,
        );
        let stored = match decided {
            Ok(stored) => stored,
            Err(why) => return Err(Box::new((upstream, why))),
        };
        let shared = &self.worker.shared;
        let bytes_max =
            self.route.object_bytes_max.map_or(shared.settings.object_bytes_max, |max| {
                max.min(shared.settings.object_bytes_max)
            });
        let announced = http_body::Body::size_hint(&upstream.body).exact();
        if announced.is_some_and(|length| length > bytes_max) {
            return Err(Box::new((upstream, NotStored::TooLarge)));
        }
        if status == StatusCode::PARTIAL_CONTENT
            && announced.is_none_or(|n| partial::storable_part(&headers, n).is_none())
        {
            return Err(Box::new((upstream, NotStored::Partial)));
        }
        Ok(Storing { stored, status, headers, upstream, log, bytes_max })
    }

    /// A response that cannot be shared goes to the leader alone; the others are sent on.
    fn release(
        &self,
        listed: &RegisteredFlight,
        upstream: UpstreamResponse,
        why: NotStored,
        direct: Option<Direct>,
    ) {
        let shared = &self.worker.shared;
        shared.metrics.count_store(why.as_str());
        if let Some(claimed) = &self.claimed {
            claimed.is_uncacheable();
        }
        // Only what the origin says about the response for everybody counts here: not what one
        // client brought about by its credentials, its range, or an error.
        let status = upstream.head.status;
        let general = !self.ranged && !self.has_credentials() && why.is_of_the_response();
        let good = status.as_u16() < 400;
        if general && !status.is_server_error() && (good || self.stored.is_none()) {
            shared.uncacheable.insert(self.key.digest(), ());
        }
        if general && good && self.stored.is_some() {
            // The upstream has a newer response: what is stored is out of date.
            shared.memory.remove(self.key.digest());
        }
        if let Some(direct) = direct {
            // A leader that has left loses its response; nobody else could use it.
            let _ = direct.send(Own::Response(Box::new(upstream), why));
        }
        listed.resolve(Resolution::Released);
    }

    pub(crate) fn keep(&self, entry: &Arc<Entry>) {
        let shared = &self.worker.shared;
        let outcome = if self.unheard || shared.log.verdict(entry) == Verdict::Void {
            Err(NotStored::Overtaken)
        } else {
            shared.memory.put(entry, |have| shared.log.verdict(have) != Verdict::Void)
        };
        match outcome {
            Ok(()) => {
                shared.metrics.count_store("stored");
                shared.uncacheable.invalidate(&self.key.digest());
                let rules = share_rules(&self.route);
                let offered = shared.tiers.iter().filter(|tier| tier.offer(entry, &rules)).count();
                if let (0, Some(claimed)) = (offered, &self.claimed) {
                    claimed.is_uncacheable();
                }
            }
            Err(why) => shared.metrics.count_store(why.as_str()),
        }
    }
}
