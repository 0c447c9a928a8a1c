//! What happens to a request, given what the store has for it. Decides only; the stages after it
//! carry out.

use std::sync::Arc;

use http::Method;
use outrigger_policy::snapshot::Bypass;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::{NotStored, conditional, range};
use outrigger_store::Entry;
use outrigger_telemetry::{MissCause, Outcome};

use crate::pipeline::answer::{Answer, Reply};
use crate::pipeline::lookup::Found;
use crate::pipeline::request::RequestView;
use crate::pipeline::trust::Distrust;

/// What happens to a request.
pub(crate) enum Plan {
    /// It is answered without the upstream.
    Answer(Answer),
    /// The same, and what it is answered with is refreshed behind the response.
    AnswerAndRefresh(Answer, Arc<Entry>),
    /// Its response is fetched for the store.
    Fetch(FetchPlan),
    /// It is forwarded past the store.
    Forward(Forward),
}

/// A fetch for the store.
pub(crate) struct FetchPlan {
    /// The stored response to validate (RFC 9111 §4.3).
    pub(crate) stored: Option<Arc<Entry>>,
    /// Why the store cannot answer.
    pub(crate) why: Forwarded,
    /// What made it a miss.
    pub(crate) cause: MissCause,
    /// Whether it is for a range of the representation.
    pub(crate) ranged: bool,
    /// Why stored responses were not to be used.
    pub(crate) distrust: Option<Distrust>,
}

impl FetchPlan {
    /// What `Cache-Status` says besides why the store cannot answer.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        let cause = || self.cause.detail().filter(|_| self.why == Forwarded::UriMiss);
        self.distrust.map(Distrust::as_str).or_else(cause)
    }
}

/// A request that the store has no part in.
pub(crate) enum Forward {
    /// The request, its route or its method rule the store out. An unsafe method invalidates its
    /// target (RFC 9111 §4.4).
    Bypass(Bypass),
    /// The last response was not storable (hit-for-miss), for this reason where it is known.
    Pass(Forwarded, Option<NotStored>),
    /// HEAD without a usable stored response; its response updates what is stored for GET.
    Head(Option<Arc<Entry>>, Forwarded, MissCause),
}

/// Decides what happens to a request.
pub(crate) fn plan(request: RequestView<'_>, found: Found) -> Plan {
    let (stored, why, cause, distrust) = match found {
        Found::Bypass(why) => return Plan::Forward(Forward::Bypass(why)),
        Found::Serve(entry, outcome) => return Plan::Answer(Answer::stored(entry, outcome)),
        Found::ServeAndRefresh(entry, outcome) => {
            let stored = Arc::clone(&entry);
            return Plan::AnswerAndRefresh(Answer::stored(entry, outcome), stored);
        }
        Found::Validate(entry, why) => {
            let cause = match why {
                Forwarded::Request => MissCause::Request,
                Forwarded::Partial => MissCause::Partial,
                _ => MissCause::Expired,
            };
            (Some(entry), why, cause, None)
        }
        Found::Nothing(why, cause) => (None, why, cause, None),
        Found::Distrusted(why) => (None, Forwarded::Bypass, MissCause::Untrusted, Some(why)),
    };
    let stored = stored.filter(|entry| entry.is_of_use());
    if let Some(answer) = stored.as_ref().and_then(|entry| from_part(request, entry)) {
        return Plan::Answer(answer);
    }
    if request.directives.only_if_cached {
        return Plan::Answer(Answer::new(Reply::OnlyIfCached, Outcome::OnlyIfCached));
    }
    let head = *request.method == Method::HEAD;
    if head && !request.route.head_fills {
        return Plan::Forward(Forward::Head(stored, why, cause));
    }
    let stored = stored.filter(|entry| entry.part.is_none());
    let out_of_date = stored.as_ref().is_none_or(|entry| entry.lifetimes.invalid);
    if out_of_date
        && distrust.is_none()
        && let Some(reason) = request.passed_since()
    {
        return Plan::Forward(Forward::Pass(why, Some(reason)));
    }
    let ranged = stored.is_none()
        && !head
        && !request.route.range_fetches_whole
        && range::parse(request.headers).is_some();
    Plan::Fetch(FetchPlan { stored, why, cause, ranged, distrust })
}

/// Answers a range from a fresh stored part that covers it (RFC 9111 §3.3).
fn from_part(request: RequestView<'_>, entry: &Arc<Entry>) -> Option<Answer> {
    let part = entry.part?;
    if request.directives.no_cache || !entry.lifetimes.is_fresh(request.now) {
        return None;
    }
    let wanted = conditional::select_from_part(
        request.method,
        request.headers,
        &entry.headers,
        part,
        request.now,
    )?;
    let reply = Reply::StoredPart(Arc::clone(entry), wanted, part.complete_length);
    Some(Answer { seen: Some(entry.seen_seq), ..Answer::new(reply, Outcome::Hit) })
}
