//! Storing the response to a POST for later GETs (RFC 9110 §9.3.3): where the origin says, by a
//! `Content-Location` that is the target itself and by a lifetime of its own, that a GET would get the
//! same. What was stored for the target has been invalidated before, as after any POST (RFC 9111 §4.4).
//! Where pods share a purge log nothing is stored: it cannot be told there whether a purge of another
//! pod has come between.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use outrigger_coherence::Seq;
use outrigger_policy::snapshot::{Intent, RouteQuery};
use outrigger_policy::values::Consistency;
use outrigger_policy::{Arrival, Authority};
use outrigger_semantics::conditional::is_conditional;
use outrigger_semantics::invalidate;
use outrigger_store::entry::LogSpan;
use tokio::time::Instant;

use crate::coalesce::flight::{Reader, Resolution};
use crate::coalesce::table::RegisteredFlight;
use crate::pipeline::fetch::Storing;
use crate::pipeline::fetch::outlive::Outlive;
use crate::pipeline::fetch::store::{Running, Storable};
use crate::pipeline::request::{RequestContext, RequestView};
use crate::upstream::UpstreamResponse;

/// Stores the response to a POST while its client reads it. `is_own` tells whether a URL has the host
/// of the request; `born` is the position of the purge log that knows of the POST.
///
/// # Errors
/// The response, where it may not be stored for GET.
pub(crate) async fn store(
    context: &Arc<RequestContext>,
    response: Box<UpstreamResponse>,
    is_own: impl Fn(&str) -> bool,
    born: Seq,
) -> Result<(Reader, Resolution), Box<UpstreamResponse>> {
    let Some(storable) = judge(context, &response, is_own) else { return Err(response) };
    let (flight, reader) = RegisteredFlight::private(born, Instant::now().into_std());
    let Some(reader) = reader else { return Err(response) };
    let outlive = Outlive::of(context, &flight, false);
    let request = Arc::clone(context);
    tokio::spawn(async move {
        let running = Running { log: LogSpan { born, seen: born }, flight, outlive };
        // A POST is not sent again.
        let rest = async |_: &HeaderMap, _, _| None;
        storing(&request).stream(storable, *response, running, |_, _| {}, rest).await;
    });
    let resolution = reader.resolution().await;
    Ok((reader, resolution))
}

fn storing(context: &RequestContext) -> Storing<'_> {
    let request = RequestView { method: &Method::GET, ..context.view() };
    Storing { request, unheard: false, client: context.forwarded_for(), lock: None }
}

/// Whether it may be stored: it says so, a GET of the same URL would find the same rules, and they
/// allow it.
fn judge(
    context: &RequestContext,
    response: &UpstreamResponse,
    is_own: impl Fn(&str) -> bool,
) -> Option<Storable> {
    let (head, request) = (&response.head, &context.parts);
    if request.method != Method::POST
        || head.status != StatusCode::OK
        || is_conditional(&request.headers)
        || context.route().consistency != Consistency::Eventual
    {
        return None;
    }
    // The upstream was asked in the client's own spelling of the host and with its own fields, where
    // the key has the canonical one and the folded ones: what it says to those is not known.
    let folds = matches!(context.route().vary.folded(&request.headers), Cow::Owned(_));
    if folds || context.routing.sent_authority().is_some() {
        return None;
    }
    let target = context.target();
    let names_target = invalidate::content_location(is_own, target.as_str(), &head.headers)
        .is_some_and(|location| location == target.as_str());
    if !names_target || context.keyed_target() != target || !finds_same_route(context) {
        return None;
    }
    let storable = storing(context).judge(response).ok()?;
    storable.is_by_origin().then_some(storable)
}

/// Whether a GET with the same fields would be looked up, by the same route. A caller by name of the
/// mesh may choose another route, so that such requests are left out.
fn finds_same_route(context: &RequestContext) -> bool {
    let (headers, route) = (&context.parts.headers, context.route());
    let found = context.active.snapshot.route(RouteQuery {
        authority: Authority::of_valid(&context.routing.authority),
        path: context.parts.uri.path(),
        method: &Method::GET,
        headers,
        peer: None,
    });
    let intent = Intent {
        method: &Method::GET,
        headers,
        directives: &context.directives,
        conditional: true,
        query: context.parts.uri.query(),
        has_body: false,
    };
    Arc::ptr_eq(found, route) && route.classify(intent, Arrival::default()).is_ok()
}
