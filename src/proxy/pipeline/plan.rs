//! What happens to a request, given what the store has for it. Decides only; the stages after it
//! carry out.

use std::sync::Arc;

use http::Method;
use http::header::RANGE;
use outrigger_policy::snapshot::Bypass;
use outrigger_policy::values::Consistency;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::{conditional, range};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::pipeline::answer::{Answer, Reply};
use crate::pipeline::lookup::Found;
use crate::pipeline::request::{RequestContext, RequestView};
use crate::pipeline::trust::Distrust;
use crate::pipeline::write::Write;

/// What happens to a request.
pub(crate) enum Plan {
    /// It is answered without the upstream.
    Answer(Answer),
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
    /// Whether it is for a range of the representation.
    pub(crate) ranged: bool,
    /// Whether other requests may share it.
    pub(crate) collapsible: bool,
    /// Why stored responses were not to be used.
    pub(crate) distrust: Option<Distrust>,
}

/// A request that the store has no part in.
pub(crate) enum Forward {
    /// The request, its route or its method rule the store out.
    Bypass(Bypass),
    /// An unsafe method, whose target is invalidated (RFC 9111 §4.4).
    Write(Write, Bypass),
    /// The last response was not storable (hit-for-miss).
    Pass(Forwarded),
    /// HEAD without a usable stored response; its response updates what is stored for GET.
    Head(Option<Arc<Entry>>, Forwarded),
}

impl Plan {
    /// How coherent the answer has to be: as the route says, or as what a write changes does.
    pub(crate) fn consistency(&self, context: &RequestContext) -> Consistency {
        match self {
            Plan::Forward(Forward::Write(write, _)) => write.consistency,
            _ => context.route().consistency,
        }
    }
}

/// Decides.
pub(crate) fn plan(context: &RequestContext, found: Found) -> Plan {
    let request = context.view();
    match found {
        Found::Serve(entry, outcome) | Found::ServeAndRefresh(entry, outcome) => {
            Plan::Answer(Answer::stored(entry, outcome))
        }
        Found::Bypass(why) => Plan::Forward(match Write::of(context) {
            Some(write) => Forward::Write(write, why),
            None => Forward::Bypass(why),
        }),
        Found::Distrusted(why) => past_store(request, why),
        Found::Validate(entry, why) => ask_upstream(request, Some(entry), why),
        Found::Nothing(why) => ask_upstream(request, None, why),
    }
}

/// Asks the upstream although something may be stored, and without a share in a fetch that may have
/// begun before the client saw what it saw.
fn past_store(request: RequestView<'_>, distrust: Distrust) -> Plan {
    if request.directives.only_if_cached || *request.method == Method::HEAD {
        return ask_upstream(request, None, Forwarded::Bypass);
    }
    Plan::Fetch(FetchPlan {
        stored: None,
        why: Forwarded::Bypass,
        ranged: range::parse(request.headers).is_some(),
        collapsible: false,
        distrust: Some(distrust),
    })
}

fn ask_upstream(request: RequestView<'_>, stored: Option<Arc<Entry>>, why: Forwarded) -> Plan {
    if let Some(answer) = stored.as_ref().and_then(|entry| answer_from_part(request, entry)) {
        return Plan::Answer(answer);
    }
    if request.directives.only_if_cached {
        return Plan::Answer(Answer::new(Reply::OnlyIfCached, Outcome::OnlyIfCached));
    }
    if *request.method == Method::HEAD {
        return Plan::Forward(Forward::Head(stored, why));
    }
    let stored = stored.filter(|entry| entry.part.is_none());
    if stored.is_none() && request.shared.hit_for_miss.contains_key(&request.key.digest()) {
        return Plan::Forward(Forward::Pass(why));
    }
    let ranged = stored.is_none() && range::parse(request.headers).is_some();
    let collapsible = !ranged && request.is_collapsible();
    Plan::Fetch(FetchPlan { stored, why, ranged, collapsible, distrust: None })
}

/// Answers a range from a fresh stored part that covers it.
fn answer_from_part(request: RequestView<'_>, entry: &Arc<Entry>) -> Option<Answer> {
    let part = entry.part?;
    let usable = entry.lifetimes.is_fresh(request.now)
        && !request.directives.no_cache
        && *request.method == Method::GET
        && request.headers.contains_key(RANGE)
        && conditional::if_range_holds(request.headers, &entry.headers);
    let range::Requested::Ranges(ranges) = range::resolve(request.headers, part.complete_length)
    else {
        return None;
    };
    let [wanted] = ranges[..] else { return None };
    if !usable || !part.covers(wanted) {
        return None;
    }
    let reply = Reply::StoredPart(Arc::clone(entry), wanted, part.complete_length);
    Some(Answer { seen: Some(entry.seen_seq), ..Answer::new(reply, Outcome::Hit) })
}
