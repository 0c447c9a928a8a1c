//! The producing side of a fetch: ask the upstream, decide about storing by RFC 9111 §3, hand the
//! bytes to the readers as they come, and store what arrived whole.
//!
//! Every fetch notes the position of the purge log before it begins, so that a purge that comes
//! while it runs voids what it stores.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use outrigger_coherence::{Seq, Verdict};
use outrigger_policy::{CacheKey, Route, key};
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_semantics::partial::{self, Part};
use outrigger_semantics::storable::{self, RequestView};
use outrigger_semantics::{
    NotStored, RequestDirectives, Stored, UnixMillis, Variant, conditional, reuse, update,
};
use outrigger_store::Entry;
use outrigger_store::entry::Draft;
use outrigger_telemetry::Outcome;
use tokio::sync::oneshot;

use crate::app::Worker;
use crate::coalesce::flight::{Resolution, SharedHead};
use crate::coalesce::table::Listed;
use crate::headers::from_upstream;
use crate::pipeline::job::{Answer, Job};
use crate::pipeline::pass;
use crate::upstream::{Call, UpstreamBody, UpstreamError, UpstreamResponse};

/// Where a response goes that belongs to the leader alone, with the reason.
type Direct = oneshot::Sender<(UpstreamResponse, NotStored)>;

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
    pub(crate) call: Call,
}

impl Fill {
    /// A fetch for a job. With a stored response the request becomes a validation; without one
    /// it is made unconditional, unless it is for a range.
    pub(crate) fn of(job: &Job, stored: Option<Arc<Entry>>, ranged: bool) -> Self {
        let mut headers = job.upstream_headers();
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
            call: job.keyed_call(headers),
        }
    }

    /// Runs the fetch to its end, or until nobody waits for it.
    pub(crate) async fn run(self, mut listed: Listed, direct: Option<Direct>) {
        let born_seq = listed.born_seq();
        let (context, call) = self.split();
        let answered = tokio::select! {
            answered = context.ask(call) => answered,
            () = Arc::clone(listed.flight()).abandoned() => return,
        };
        match answered {
            Err(error) => context.failed(&listed, error),
            Ok(Asked::Confirmed(headers, exchange)) => {
                context.confirmed(&listed, &headers, exchange, born_seq);
            }
            Ok(Asked::Response(upstream)) => {
                if context.stale_instead(&listed, upstream.head.status) {
                    return;
                }
                match context.judge(upstream, born_seq) {
                    Ok(storing) => storing.stream(&context, listed).await,
                    Err((upstream, why)) => {
                        listed.unlist();
                        context.release(&listed, upstream, why, direct);
                    }
                }
            }
        }
    }

    fn split(self) -> (Context, Call) {
        let context = Context {
            worker: self.worker,
            route: self.route,
            key: self.key,
            request: self.request,
            directives: self.directives,
            stored: self.stored,
            validating: self.validating,
        };
        (context, self.call)
    }
}

/// What a fetch needs besides its call.
struct Context {
    worker: Arc<Worker>,
    route: Arc<Route>,
    key: CacheKey,
    request: HeaderMap,
    directives: RequestDirectives,
    stored: Option<Arc<Entry>>,
    validating: bool,
}

/// What the upstream said.
enum Asked {
    /// 304: what is stored is good, under these fields.
    Confirmed(HeaderMap, outrigger_semantics::freshness::Exchange),
    /// A response.
    Response(UpstreamResponse),
}

impl Context {
    async fn ask(&self, call: Call) -> Result<Asked, UpstreamError> {
        let again = Call {
            method: call.method.clone(),
            target: call.target.clone(),
            authority: call.authority.clone(),
            headers: call.headers.clone(),
            body: crate::body::RequestBody::Empty,
            body_sent: None,
            hash: call.hash,
            guard: call.guard,
            interim: call.interim.clone(),
        };
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
        Ok(Asked::Response(upstream))
    }

    fn clean(&self, upstream: &mut UpstreamResponse) {
        let identity = &self.worker.shared.identity;
        let version = upstream.head.version;
        let now = upstream.exchange.responded_at;
        from_upstream(&mut upstream.head.headers, version, identity, now);
    }

    fn request(&self) -> RequestView<'_> {
        RequestView {
            method: &http::Method::GET,
            headers: &self.request,
            directives: self.directives,
            identity_in_key: self.key.holds_identity(),
        }
    }

    fn now(&self) -> UnixMillis {
        self.worker.shared.clock.now()
    }

    /// No response: a stored one may stand in (RFC 5861 §4).
    fn failed(&self, listed: &Listed, error: UpstreamError) {
        if !self.serve_stale(listed) {
            tracing::debug!(%error, key = %self.key.display(), "fetch failed");
            listed.resolve(Resolution::Failed(Arc::new(error)));
        }
    }

    /// An error of the upstream's: a stored good response may stand in.
    fn stale_instead(&self, listed: &Listed, status: StatusCode) -> bool {
        matches!(status.as_u16(), 500 | 502 | 503 | 504) && self.serve_stale(listed)
    }

    fn serve_stale(&self, listed: &Listed) -> bool {
        let Some(stored) = &self.stored else { return false };
        let allowed = stored.is_good()
            && self.worker.shared.log.verdict(stored) != Verdict::Void
            && reuse::may_serve_on_error(&stored.lifetimes, &self.directives, self.now());
        if allowed {
            listed.resolve(Resolution::Entry(Arc::clone(stored), Outcome::StaleIfError));
            listed.finish(true);
        }
        allowed
    }

    /// A 304: the stored response lives on under new fields (RFC 9111 §4.3.4).
    fn confirmed(
        &self,
        listed: &Listed,
        newer: &HeaderMap,
        exchange: outrigger_semantics::freshness::Exchange,
        born_seq: Seq,
    ) {
        let Some(stored) = &self.stored else { return };
        let headers = update::updated(&stored.headers, newer);
        let decided =
            storable::decide(self.request(), stored.status, &headers, exchange, &self.route.store);
        let entry = match decided {
            Ok(Stored { lifetimes, omit }) => {
                let entry =
                    Arc::new(stored.freshened(&headers, &omit, lifetimes, born_seq, self.now()));
                self.keep(&entry);
                entry
            }
            Err(why) => {
                // It answers this request and is then forgotten.
                self.worker.shared.metrics.count_store(why.as_str());
                self.worker.shared.memory.remove(self.key.digest());
                Arc::new(stored.freshened(&headers, &[], stored.lifetimes, born_seq, self.now()))
            }
        };
        listed.resolve(Resolution::Entry(entry, Outcome::Revalidated));
        listed.finish(true);
    }

    /// Decides whether a response may be stored.
    fn judge(
        &self,
        mut upstream: UpstreamResponse,
        born_seq: Seq,
    ) -> Result<Storing, (UpstreamResponse, NotStored)> {
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
            Err(why) => return Err((upstream, why)),
        };
        let shared = &self.worker.shared;
        let bytes_max =
            self.route.object_bytes_max.map_or(shared.settings.object_bytes_max, |max| {
                max.min(shared.settings.object_bytes_max)
            });
        let announced = http_body::Body::size_hint(&upstream.body).exact();
        if announced.is_some_and(|length| length > bytes_max) {
            return Err((upstream, NotStored::TooLarge));
        }
        if status == StatusCode::PARTIAL_CONTENT
            && announced.is_none_or(|n| partial::storable_part(&headers, n).is_none())
        {
            return Err((upstream, NotStored::Partial));
        }
        Ok(Storing { stored, status, headers, upstream, born_seq, bytes_max })
    }

    /// A response that cannot be shared goes to the leader alone; the others are sent on.
    fn release(
        &self,
        listed: &Listed,
        upstream: UpstreamResponse,
        why: NotStored,
        direct: Option<Direct>,
    ) {
        let shared = &self.worker.shared;
        shared.metrics.count_store(why.as_str());
        // A failure says nothing about whether the next answer can be stored.
        if !upstream.head.status.is_server_error() {
            if why != NotStored::RequestNoStore && why != NotStored::Partial {
                shared.uncacheable.insert(self.key.digest(), ());
            }
            if self.stored.is_some() {
                // The upstream has a newer response: what is stored is out of date.
                shared.memory.remove(self.key.digest());
            }
        }
        if let Some(direct) = direct {
            // A leader that has left loses its response; nobody else could use it.
            let _ = direct.send((upstream, why));
        }
        listed.resolve(Resolution::Released);
    }

    fn keep(&self, entry: &Arc<Entry>) {
        let shared = &self.worker.shared;
        let outcome = if shared.log.verdict(entry) == Verdict::Void {
            Err(NotStored::Overtaken)
        } else {
            shared.memory.put(entry, |have| shared.log.verdict(have) != Verdict::Void)
        };
        match outcome {
            Ok(()) => {
                shared.metrics.count_store("stored");
                shared.uncacheable.invalidate(&self.key.digest());
                shared.tiers.iter().for_each(|tier| tier.offer(entry));
            }
            Err(why) => shared.metrics.count_store(why.as_str()),
        }
    }
}

/// A response that is being stored.
struct Storing {
    stored: Stored,
    status: StatusCode,
    headers: HeaderMap,
    upstream: UpstreamResponse,
    born_seq: Seq,
    bytes_max: u64,
}

impl Storing {
    /// Hands the bytes to the readers and stores them when all have come.
    async fn stream(self, context: &Context, mut listed: Listed) {
        let variant = Variant::of(&self.headers, &context.request);
        listed.resolve(Resolution::Streaming(Arc::new(SharedHead {
            status: self.status,
            headers: self.headers.clone(),
            lifetimes: self.stored.lifetimes,
            variant: variant.clone(),
        })));
        let mut chunks = Collected { bytes_max: self.bytes_max, ..Collected::default() };
        let mut body = self.upstream.body;
        let flight = Arc::clone(listed.flight());
        let ended = tokio::select! {
            ended = pump(&mut body, &mut chunks, &mut listed) => ended,
            () = flight.abandoned() => return,
        };
        let shared = &context.worker.shared;
        if !ended {
            shared.metrics.count_store(NotStored::Truncated.as_str());
            return listed.finish(false);
        }
        if chunks.overflowed {
            shared.metrics.count_store(NotStored::TooLarge.as_str());
            shared.uncacheable.insert(context.key.digest(), ());
            return listed.finish(true);
        }
        let body = chunks.join();
        let part = (self.status == StatusCode::PARTIAL_CONTENT)
            .then(|| partial::storable_part(&self.headers, body.len() as u64));
        let fetch =
            self.upstream.exchange.responded_at.millis_since(self.upstream.exchange.requested_at);
        let draft = Draft {
            key: context.key.text(),
            digest: context.key.digest(),
            uri_len: context.key.uri().len(),
            uri_digest: key::digest(context.key.uri()),
            status: self.status,
            headers: &self.headers,
            omit: &self.stored.omit,
            body,
            part: None,
            variant,
            lifetimes: self.stored.lifetimes,
            born_seq: self.born_seq,
            now: context.now(),
            fetch_millis: u32::try_from(fetch.max(0)).unwrap_or(u32::MAX),
        };
        match part {
            None => context.keep(&Arc::new(Entry::new(draft))),
            Some(Some(part)) => context.keep_part(draft, part),
            Some(None) => shared.metrics.count_store(NotStored::Partial.as_str()),
        }
        listed.finish(true);
    }
}

impl Context {
    /// Stores a part, joined with the part that is there already where both are of one
    /// representation (RFC 9111 §3.4). A complete response is never replaced by a part.
    fn keep_part(&self, draft: Draft<'_>, part: Part) {
        let shared = &self.worker.shared;
        let wanted = outrigger_store::lookup::Wanted {
            digest: draft.digest,
            key: draft.key,
            headers: &self.request,
        };
        let old = match shared.memory.get(wanted) {
            outrigger_store::Lookup::Hit(old) if shared.log.verdict(&old) == Verdict::Valid => {
                Some(old)
            }
            _ => None,
        };
        let Some(old) = old else {
            return self.keep(&Arc::new(Entry::new(Draft { part: Some(part), ..draft })));
        };
        let Some(old_part) = old.part else {
            return shared.metrics.count_store(NotStored::KeptGood.as_str());
        };
        let Some(joined) = partial::join((&old.headers, old_part), (draft.headers, part)) else {
            return self.keep(&Arc::new(Entry::new(Draft { part: Some(part), ..draft })));
        };
        let (left, right) =
            if joined.old_first { (&old.body, &draft.body) } else { (&draft.body, &old.body) };
        let overlap = usize::try_from(joined.overlap).unwrap_or(usize::MAX).min(right.len());
        let mut body = BytesMut::with_capacity(left.len() + right.len() - overlap);
        body.extend_from_slice(left);
        body.extend_from_slice(&right[overlap..]);
        let mut headers = draft.headers.clone();
        headers.remove(http::header::CONTENT_RANGE);
        let born_seq = draft.born_seq.min(old.born_seq);
        let entry = if joined.part.is_complete() {
            Entry::new(Draft {
                status: StatusCode::OK,
                headers: &headers,
                body: body.freeze(),
                part: None,
                born_seq,
                ..draft
            })
        } else {
            Entry::new(Draft { body: body.freeze(), part: Some(joined.part), born_seq, ..draft })
        };
        // The joined entry must not look older than the part it replaces.
        shared.memory.remove(entry.digest);
        self.keep(&Arc::new(entry));
    }
}

/// Chunks of a body that may be stored.
#[derive(Default)]
struct Collected {
    chunks: Vec<Bytes>,
    total: u64,
    bytes_max: u64,
    overflowed: bool,
}

impl Collected {
    /// One piece of memory of exactly the right size.
    fn join(self) -> Bytes {
        let mut whole = Vec::with_capacity(usize::try_from(self.total).unwrap_or(0));
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        Bytes::from(whole)
    }
}

/// Moves the body from the upstream to the readers; `true` if it came to its end.
async fn pump(body: &mut UpstreamBody, collected: &mut Collected, listed: &mut Listed) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let chunk = match frame.into_data() {
            Ok(chunk) => chunk,
            Err(frame) => {
                // They reach those who read along, and are not stored (RFC 9110 §6.5.1).
                if let Ok(trailers) = frame.into_trailers() {
                    listed.trailers(trailers);
                }
                continue;
            }
        };
        if chunk.is_empty() {
            continue;
        }
        collected.total += chunk.len() as u64;
        if collected.total > collected.bytes_max && !collected.overflowed {
            collected.overflowed = true;
            collected.chunks = Vec::new();
            listed.unlist();
            listed.stop_keeping();
        }
        if !collected.overflowed {
            collected.chunks.push(chunk.clone());
        }
        listed.push(chunk);
        listed.room().await;
    }
    true
}

/// Starts a refresh that nobody waits for, unless the key is being fetched already.
pub(crate) fn refresh(job: &Job, entry: &Arc<Entry>) {
    let shared = &job.worker.shared;
    let key = (job.key.digest(), 0);
    let Some(listed) = shared.flights.begin_refresh(key, shared.log.applied()) else {
        return;
    };
    let mut fill = Fill::of(job, Some(Arc::clone(entry)), false);
    fill.call.method = http::Method::GET;
    tokio::spawn(fill.run(listed, None));
}

/// HEAD without a usable stored response: it is forwarded, and its answer updates or voids what is
/// stored for GET (RFC 9111 §4.3.5).
pub(crate) async fn head(job: &mut Job, stored: Option<Arc<Entry>>, why: Forwarded) -> Answer {
    let status = CacheStatus { fwd: Some(why), ..CacheStatus::default() };
    let born_seq = job.worker.shared.log.applied();
    let upstream = match pass::exchange(job).await {
        Ok(upstream) => upstream,
        Err(error) => {
            return match stored.filter(|entry| {
                reuse::may_serve_on_error(&entry.lifetimes, &job.directives, job.now)
            }) {
                Some(entry) => job.from_entry(&entry, Outcome::StaleIfError),
                None => pass::failed(job, &error, status),
            };
        }
    };
    if let Some(entry) = stored.filter(|entry| entry.part.is_none())
        && upstream.head.status == entry.status
    {
        update_from_head(job, &entry, &upstream, born_seq);
    }
    let fwd_status = Some(upstream.head.status.as_u16());
    let response = job.streamed(upstream, CacheStatus { fwd_status, ..status });
    Answer { response, outcome: Outcome::Miss }
}

fn update_from_head(job: &Job, entry: &Arc<Entry>, upstream: &UpstreamResponse, born_seq: Seq) {
    let context = Fill::of(job, Some(Arc::clone(entry)), false).split().0;
    let mut newer = upstream.head.headers.clone();
    let now = upstream.exchange.responded_at;
    from_upstream(&mut newer, upstream.head.version, &job.worker.shared.identity, now);
    if !update::head_agrees(&newer, &entry.headers) {
        job.worker.shared.memory.remove(entry.digest);
        return;
    }
    let headers = update::updated(&entry.headers, &newer);
    let decided = storable::decide(
        context.request(),
        entry.status,
        &headers,
        upstream.exchange,
        &job.route.store,
    );
    if let Ok(Stored { lifetimes, omit }) = decided {
        let fresh = entry.freshened(&headers, &omit, lifetimes, born_seq, context.now());
        context.keep(&Arc::new(fresh));
    }
}
