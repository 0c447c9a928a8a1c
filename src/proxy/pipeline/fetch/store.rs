//! Storing: decides by RFC 9111 §3, hands the bytes to the readers as they come, and puts the
//! response into the store when all have come.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use outrigger_coherence::Verdict;
use outrigger_policy::key::digest;
use outrigger_semantics::freshness::{Exchange, FreshnessSource};
use outrigger_semantics::partial;
use outrigger_semantics::supersede::{self, Answer, Asker, Effect, Held};
use outrigger_semantics::{Lifetimes, NotStored, Recency, Stored, Variant, storable, update};
use outrigger_store::entry::{Draft, LogSpan};
use outrigger_store::memory::held;
use outrigger_store::{Entry, Lookup};

use crate::coalesce::flight::{FlightHead, Resolution};
use crate::coalesce::table::RegisteredFlight;
use crate::coalesce::vary;
use crate::headers::{Client, varies_by_what_is_added};
use crate::pipeline::fetch::outlive::Outlive;
use crate::pipeline::fetch::pump::{Collected, pump_all};
use crate::pipeline::peers::FetchLock;
use crate::pipeline::request::RequestView;
use crate::pipeline::sharing::share_rules;
use crate::upstream::{UpstreamBody, UpstreamResponse};

/// Storing what the upstream answers to a request.
#[derive(Clone, Copy)]
pub(crate) struct Storing<'a> {
    pub(crate) request: RequestView<'a>,
    /// Whether there may have been holds that this pod had not heard of when the request was sent.
    pub(crate) unheard: bool,
    /// The client with whose request it was asked for.
    pub(crate) client: Client,
    /// The right to fetch for all pods, if this one has it.
    pub(crate) lock: Option<&'a FetchLock>,
}

/// A response that may be stored.
pub(crate) struct Storable {
    stored: Stored,
    /// Bytes of the largest body to store.
    bytes_max: u64,
}

/// A fetch that others may read.
pub(super) struct Running {
    /// The positions of the purge log that its response may reflect.
    pub(super) log: LogSpan,
    /// Where its readers find it.
    pub(super) flight: RegisteredFlight,
    /// How long it goes on without them.
    pub(super) outlive: Outlive,
}

impl Storable {
    /// Whether the origin has given the lifetime.
    pub(super) fn is_by_origin(&self) -> bool {
        use FreshnessSource::{Expires, MaxAge, SMaxage};
        matches!(self.stored.lifetimes.source, SMaxage | MaxAge | Expires)
    }
}

impl Storing<'_> {
    /// Decides whether a response may be stored.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn judge(&self, upstream: &UpstreamResponse) -> Result<Storable, NotStored> {
        let UpstreamResponse { head, body, exchange, .. } = upstream;
        let RequestView { route, shared, .. } = self.request;
        let facts = self.request.facts();
        let stored = storable::decide(facts, head.status, &head.headers, *exchange, &route.store)?;
        let RequestView { key, now, .. } = self.request;
        if route.min_uses > 1 && shared.uses.of(key.digest(), now) < route.min_uses {
            return Err(NotStored::FewUses);
        }
        if self.varies_by_client(&head.headers) {
            return Err(NotStored::VaryClient);
        }
        let ours = shared.settings.object_bytes_max;
        let bytes_max = route.object_bytes_max.map_or(ours, |max| max.min(ours));
        let announced = http_body::Body::size_hint(body).exact();
        if announced.is_some_and(|length| length > bytes_max) {
            return Err(NotStored::TooLarge);
        }
        let unusable = |n| partial::storable_part(&head.headers, n).is_none();
        if head.status == StatusCode::PARTIAL_CONTENT && announced.is_none_or(unusable) {
            return Err(NotStored::Partial);
        }
        Ok(Storable { stored, bytes_max })
    }

    /// By what a response with these fields was selected.
    pub(super) fn variant(&self, response: &HeaderMap) -> Variant {
        Variant::of(response, self.request.headers, &self.request.route.vary.ignored)
    }

    /// Whether it was selected by what we have added to the request.
    fn varies_by_client(&self, response: &HeaderMap) -> bool {
        let RequestView { headers, route, .. } = self.request;
        varies_by_what_is_added(response, headers, self.client, &route.vary.ignored)
    }

    /// Hands the bytes to the readers and stores them when all have come. `on_end` learns, before
    /// the readers do, whether the body came to its end, and why it is not stored. `rest` is asked
    /// once for what lacks of a body that broke off, with the fields of the response, the bytes that
    /// have come, and those that it was to have.
    pub(super) async fn stream(
        &self,
        storable: Storable,
        upstream: UpstreamResponse,
        running: Running,
        on_end: impl FnOnce(bool, Option<NotStored>),
        rest: impl AsyncFnOnce(&HeaderMap, u64, u64) -> Option<UpstreamBody>,
    ) {
        let Running { log, mut flight, mut outlive } = running;
        let RequestView { shared, key, headers, .. } = self.request;
        let Storable { stored, bytes_max } = storable;
        let UpstreamResponse { head, body, exchange, ends_by_close, .. } = upstream;
        let (status, announced) = (head.status, http_body::Body::size_hint(&body).exact());
        let head = Arc::new(FlightHead {
            status: head.status,
            variant: self.variant(&head.headers),
            headers: head.headers,
            lifetimes: stored.lifetimes,
            omit: stored.omit,
            seen_seq: log.seen,
        });
        // Before anybody can know by what it varies, so that they find this fetch.
        flight.list_as(vary::hint(head.variant.names(), headers));
        shared.vary.learn(key.digest(), &head.variant);
        flight.resolve(Resolution::Streaming(Arc::clone(&head)));
        let mut chunks = Collected::up_to(bytes_max);
        let watched = Arc::clone(flight.flight());
        let resume = async |had| match (status, announced) {
            (StatusCode::OK, Some(length)) => rest(&head.headers, had, length).await,
            _ => None,
        };
        let ended = tokio::select! {
            ended = pump_all(body, &mut chunks, &mut flight, self.request, resume) => ended,
            () = outlive.over(&watched) => return,
        };
        let not_stored = match (ended, chunks.overflowed) {
            (true, false) if chunks.total == 0 && ends_by_close => Some(NotStored::Truncated),
            (true, false) => None,
            (_, true) => Some(NotStored::TooLarge),
            (false, false) => Some(NotStored::Truncated),
        };
        on_end(ended, not_stored);
        if let Some(why) = not_stored {
            shared.metrics.count_store(why.as_str());
            return flight.finish(ended);
        }
        self.store_whole(&head, chunks, exchange, log);
        flight.finish(true);
    }

    /// Puts a response into the store whose body has come as a whole.
    fn store_whole(&self, head: &FlightHead, chunks: Collected, exchange: Exchange, log: LogSpan) {
        let RequestView { shared, key, route, .. } = self.request;
        let bytes_max = chunks.bytes_max;
        let now = shared.clock.now();
        let fetch = now.millis_since(exchange.requested_at);
        let draft = Draft {
            key: key.text(),
            digest: key.digest(),
            uri_len: key.uri().len(),
            uri_digest: digest(key.uri()),
            status: head.status,
            headers: &head.headers,
            omit: &head.omit,
            body: chunks.join(),
            part: None,
            variant: head.variant.clone(),
            lifetimes: head.lifetimes,
            log,
            rules_fingerprint: route.rules_fingerprint,
            recency: Recency::of(&head.headers, exchange),
            now,
            fetch_millis: u32::try_from(fetch.max(0)).unwrap_or(u32::MAX),
        };
        if head.status != StatusCode::PARTIAL_CONTENT {
            self.keep(&Arc::new(Entry::new(draft)));
        } else if let Some(part) = partial::storable_part(&head.headers, draft.body.len() as u64) {
            self.keep_part(draft, part, exchange, bytes_max);
        } else {
            shared.metrics.count_store(NotStored::Partial.as_str());
        }
    }

    /// A stored response under newer fields, of a 304 or of a HEAD response that agrees with it
    /// (RFC 9111 §4.3.4, §4.3.5).
    ///
    /// # Errors
    /// Under these fields it may not be stored: it is good for the one request that brought them.
    pub(crate) fn freshened(
        &self,
        stored: &Entry,
        newer: &HeaderMap,
        exchange: Exchange,
        log: LogSpan,
    ) -> Result<Arc<Entry>, (Arc<Entry>, NotStored)> {
        let RequestView { shared, route, .. } = self.request;
        let headers = update::updated(&stored.headers, newer);
        let variant = self.variant(&headers);
        let draft = Draft {
            recency: Recency::of(&headers, exchange),
            headers: &headers,
            variant,
            log,
            now: shared.clock.now(),
            ..stored.draft()
        };
        let judged = self.judge_updated(stored.status, &headers, exchange);
        match judged {
            Ok(Stored { lifetimes, omit }) => Ok(Arc::new(Entry::new(Draft {
                omit: &omit,
                lifetimes,
                rules_fingerprint: route.rules_fingerprint,
                ..draft
            }))),
            Err(why) => Err((Arc::new(Entry::new(draft)), why)),
        }
    }

    /// Whether a response may be stored under these fields, some of which are of an earlier one.
    pub(super) fn judge_updated(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        exchange: Exchange,
    ) -> Result<Stored, NotStored> {
        let RequestView { route, .. } = self.request;
        let judged =
            storable::decide(self.request.facts(), status, headers, exchange, &route.store)?;
        match self.varies_by_client(headers) {
            true => Err(NotStored::VaryClient),
            false => Ok(judged),
        }
    }

    /// Ends what uses of the stored response an answer ends that is not stored itself, by the table of
    /// [`supersede`]. Returns what was held, and the effect; to freshen is left to the caller.
    pub(crate) fn answered(
        &self,
        stored: &Entry,
        recency: Recency,
        answer: Answer,
        asker: Asker,
    ) -> (Held, Effect) {
        let RequestView { shared, .. } = self.request;
        let now = shared.clock.now();
        let current = match shared.memory.peek(self.request.wanted()) {
            Lookup::Hit(entry) => Some(entry),
            _ => None,
        };
        let valid = |entry: &Entry| shared.log.verdict(entry) != Verdict::Purged;
        let held = held(current.as_deref().unwrap_or(stored), recency, now, valid);
        let effect = supersede::cell(held, answer, asker).effect;
        match effect {
            Effect::Invalidate => self.supersede(stored, recency, Lifetimes::invalidated),
            Effect::EndStale => self.supersede(stored, recency, |old| old.without_stale(now)),
            _ => {}
        }
        (held, effect)
    }

    /// Ends uses of the stored response after an answer of this recency, here and in the tiers below:
    /// `change` makes its new lifetimes of the old ones.
    fn supersede(&self, stored: &Entry, recency: Recency, change: impl Fn(Lifetimes) -> Lifetimes) {
        let RequestView { shared, route, .. } = self.request;
        let (wanted, now) = (self.request.wanted(), shared.clock.now());
        let ended = match shared.memory.peek(wanted) {
            Lookup::Hit(_) => shared.memory.supersede(wanted, recency, now, change),
            // Memory may have lost it meanwhile.
            _ => Some(Arc::new(stored.superseded(change(stored.lifetimes), recency, now)))
                .filter(|entry| shared.keep_in_memory(entry).is_ok()),
        };
        if let Some(entry) = ended {
            let rules = share_rules(route);
            shared.tiers.iter().for_each(|tier| {
                tier.offer(&entry, &rules);
            });
        }
    }

    /// Puts a response into memory and offers it to the tiers below.
    pub(crate) fn keep(&self, entry: &Arc<Entry>) {
        let RequestView { shared, key, route, .. } = self.request;
        let kept =
            if self.unheard { Err(NotStored::Overtaken) } else { shared.keep_in_memory(entry) };
        match kept {
            Ok(()) => {
                shared.metrics.count_store("stored");
                shared.passed.forget_for_all(key.digest());
                let rules = share_rules(route);
                let offered = shared.tiers.iter().filter(|tier| tier.offer(entry, &rules)).count();
                if let (0, Some(lock)) = (offered, self.lock) {
                    lock.mark_uncacheable();
                }
            }
            Err(why) => shared.metrics.count_store(why.as_str()),
        }
    }
}
