//! A stored response in place of an upstream that gave none (RFC 5861 §4).

use std::sync::Arc;

use outrigger_coherence::Verdict;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::reuse;
use outrigger_store::Entry;

use crate::pipeline::answer::Answer;
use crate::pipeline::request::RequestView;
use crate::upstream::UpstreamError;

/// Whether a stored response may be served in place of a failed upstream (RFC 5861 §4): a whole,
/// good one that no purge has met.
pub(crate) fn may_serve_on_error(request: RequestView<'_>, entry: &Entry) -> bool {
    entry.part.is_none()
        && entry.is_good()
        && request.shared.log.verdict(entry) != Verdict::Void
        && reuse::may_serve_on_error(&entry.lifetimes, request.directives, request.now)
}

/// The answer where the upstream gives none: what is stored, if that is allowed, or else the error.
pub(crate) fn answer(
    request: RequestView<'_>,
    stored: Option<Arc<Entry>>,
    error: Arc<UpstreamError>,
    why: Forwarded,
) -> Answer {
    match stored.filter(|entry| may_serve_on_error(request, entry)) {
        Some(entry) => Answer::stored(entry, error.stand_in()),
        None => Answer::failed(error, why),
    }
}
