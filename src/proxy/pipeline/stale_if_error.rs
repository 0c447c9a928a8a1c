//! A stored response in place of an upstream that gave none (RFC 5861 §4).

use outrigger_coherence::Verdict;
use outrigger_store::Entry;

use crate::pipeline::answer::{Answer, Reply};
use crate::pipeline::request::RequestView;

/// Whether a stored response may be served in place of a failed upstream (RFC 5861 §4): a whole
/// one, with whatever status below 500, that no purge has met.
pub(crate) fn may_serve_on_error(request: RequestView<'_>, entry: &Entry) -> bool {
    entry.part.is_none()
        && entry.is_good()
        && request.shared.log.verdict(entry) != Verdict::Purged
        && entry.lifetimes.may_serve_on_error(request.directives, request.now)
}

/// Puts the stored response in the place of a failure, if that is allowed.
pub(crate) fn instead(request: RequestView<'_>, answer: Answer) -> Answer {
    match answer.reply {
        Reply::Failed(error, Some(stored)) if may_serve_on_error(request, &stored) => {
            Answer::stored(stored, error.stale_outcome())
        }
        reply => Answer { reply, ..answer },
    }
}
