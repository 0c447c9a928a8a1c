//! Storing: the bytes go to the readers as they come, and into the store when all have come. Parts
//! of a representation are joined where that is safe (RFC 9111 §3.4).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use outrigger_coherence::Verdict;
use outrigger_policy::key;
use outrigger_semantics::partial::{self, Part};
use outrigger_semantics::{NotStored, Stored, Variant};
use outrigger_store::entry::{Draft, LogSpan};
use outrigger_store::lookup::Wanted;
use outrigger_store::{Entry, Lookup};

use crate::coalesce::flight::{FlightHead, Resolution};
use crate::coalesce::table::RegisteredFlight;
use crate::pipeline::fill::Context;
use crate::upstream::{UpstreamBody, UpstreamResponse};

/// A response that is being stored.
pub(crate) struct Storing {
    pub(crate) stored: Stored,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) upstream: UpstreamResponse,
    pub(crate) log: LogSpan,
    /// Bytes of the largest body to store.
    pub(crate) bytes_max: u64,
}

impl Storing {
    /// Hands the bytes to the readers and stores them when all have come.
    pub(crate) async fn stream(self, context: &Context, mut listed: RegisteredFlight) {
        let variant = Variant::of(&self.headers, &context.request);
        listed.resolve(Resolution::Streaming(Arc::new(FlightHead {
            status: self.status,
            headers: self.headers.clone(),
            lifetimes: self.stored.lifetimes,
            variant: variant.clone(),
            omit: self.stored.omit.clone(),
            seen_seq: self.log.seen,
        })));
        let mut chunks = Collected { bytes_max: self.bytes_max, ..Collected::default() };
        let mut body = self.upstream.body;
        let flight = Arc::clone(listed.flight());
        let shared = &context.worker.shared;
        let ended = tokio::select! {
            ended = pump(&mut body, &mut chunks, &mut listed, || {
                shared.uncacheable.insert(context.key.digest(), ());
            }) => ended,
            () = flight.abandoned() => return,
        };
        if ended {
            shared.watch.answered(context.key.digest());
        } else if !chunks.overflowed {
            // What is too large may also have been given up on our side.
            context.back_off();
        }
        if chunks.overflowed {
            shared.metrics.count_store(NotStored::TooLarge.as_str());
            return listed.finish(ended);
        }
        if !ended {
            shared.metrics.count_store(NotStored::Truncated.as_str());
            return listed.finish(false);
        }
        let body = chunks.join();
        let part = (self.status == StatusCode::PARTIAL_CONTENT)
            .then(|| partial::storable_part(&self.headers, body.len() as u64));
        let fetch = context.now().millis_since(self.upstream.exchange.requested_at);
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
            log: self.log,
            policy_epoch: context.epoch(),
            now: context.now(),
            fetch_millis: u32::try_from(fetch.max(0)).unwrap_or(u32::MAX),
        };
        match part {
            None => context.keep(&Arc::new(Entry::new(draft))),
            Some(Some(part)) => context.keep_part(draft, part, self.bytes_max),
            Some(None) => shared.metrics.count_store(NotStored::Partial.as_str()),
        }
        listed.finish(true);
    }
}

impl Context {
    /// Stores a part, joined with the part that is there already where both are of one
    /// representation (RFC 9111 §3.4). A complete response is never replaced by a part.
    fn keep_part(&self, draft: Draft<'_>, part: Part, bytes_max: u64) {
        let shared = &self.worker.shared;
        let wanted = Wanted::of(draft.digest, draft.key, &self.request);
        let old = match shared.memory.get(wanted) {
            Lookup::Hit(old) if shared.log.verdict(&old) == Verdict::Valid => Some(old),
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
        if joined.part.range.count() > bytes_max {
            return self.keep(&Arc::new(Entry::new(Draft { part: Some(part), ..draft })));
        }
        let overlap = usize::try_from(joined.overlap).unwrap_or(usize::MAX).min(right.len());
        let mut body = BytesMut::with_capacity(left.len() + right.len() - overlap);
        body.extend_from_slice(left);
        body.extend_from_slice(&right[overlap..]);
        let mut headers = draft.headers.clone();
        headers.remove(http::header::CONTENT_RANGE);
        let log = LogSpan {
            born: draft.log.born.min(old.born_seq),
            seen: draft.log.seen.max(old.seen_seq),
        };
        let entry = if joined.part.is_complete() {
            Entry::new(Draft {
                status: StatusCode::OK,
                headers: &headers,
                body: body.freeze(),
                part: None,
                log,
                ..draft
            })
        } else {
            Entry::new(Draft { body: body.freeze(), part: Some(joined.part), log, ..draft })
        };
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
async fn pump(
    body: &mut UpstreamBody,
    collected: &mut Collected,
    listed: &mut RegisteredFlight,
    overflow: impl Fn(),
) -> bool {
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
            overflow();
            collected.chunks = Vec::new();
            listed.unlist();
            listed.stop_keeping();
        }
        if collected.overflowed && listed.is_unread() {
            // Nothing will be stored, and nobody is there for the rest.
            return false;
        }
        if !collected.overflowed {
            collected.chunks.push(chunk.clone());
        }
        listed.push(chunk);
        listed.room().await;
    }
    true
}
