//! Storing parts of a representation: they are joined with what is there where that is safe
//! (RFC 9111 §3.4). Which parts fit together is decided in the semantics crate.

use std::sync::Arc;

use bytes::BytesMut;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use outrigger_coherence::Verdict;
use outrigger_semantics::freshness::Exchange;
use outrigger_semantics::partial::{self, Part};
use outrigger_semantics::{NotStored, Stored, update};
use outrigger_store::entry::{Draft, LogSpan};
use outrigger_store::lookup::Wanted;
use outrigger_store::{Entry, Lookup};

use crate::pipeline::fetch::Storing;

impl Storing<'_> {
    /// Stores a part, joined with the part that is there already where both are of one
    /// representation: the fields of the newer one update the others, and what results must be
    /// storable (RFC 9111 §3.4). A complete response is never replaced by a part.
    pub(super) fn keep_part(
        &self,
        draft: Draft<'_>,
        part: Part,
        exchange: Exchange,
        bytes_max: u64,
    ) {
        let shared = self.request.shared;
        let wanted = Wanted::of(draft.digest, draft.key, self.request.headers);
        let old = match shared.memory.peek(wanted) {
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
        let mut headers = update::updated(&old.headers, draft.headers);
        let judged = self.judge_updated(draft.status, &headers, exchange);
        let (false, Ok(Stored { lifetimes, omit })) =
            (joined.part.range.count() > bytes_max, judged)
        else {
            return self.keep(&Arc::new(Entry::new(Draft { part: Some(part), ..draft })));
        };
        let (left, right) =
            if joined.old_first { (&old.body, &draft.body) } else { (&draft.body, &old.body) };
        let overlap = usize::try_from(joined.overlap).unwrap_or(usize::MAX).min(right.len());
        let mut body = BytesMut::with_capacity(left.len() + right.len() - overlap);
        body.extend_from_slice(left);
        body.extend_from_slice(&right[overlap..]);
        let complete = joined.part.is_complete();
        headers.remove(CONTENT_RANGE);
        if let Some(value) = joined.part.content_range().filter(|_| !complete) {
            headers.insert(CONTENT_RANGE, value);
        }
        let log = LogSpan {
            born: draft.log.born.min(old.born_seq),
            seen: draft.log.seen.max(old.seen_seq),
        };
        let entry = Entry::new(Draft {
            status: if complete { StatusCode::OK } else { draft.status },
            headers: &headers,
            omit: &omit,
            body: body.freeze(),
            part: Some(joined.part).filter(|_| !complete),
            variant: self.variant(&headers),
            lifetimes,
            log,
            ..draft
        });
        self.keep(&Arc::new(entry));
    }
}
