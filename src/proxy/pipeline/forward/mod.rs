//! Forwarding what the store has no part in: other methods, upgrades, routes that are switched
//! off, keys whose responses are not storable, and HEAD without a stored response. What comes back
//! may update or invalidate what is stored.

mod write;

use std::sync::Arc;

use http::header::ETAG;
use http::{Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use outrigger_coherence::{LogError, Seq};
use outrigger_policy::snapshot::Bypass;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::supersede::{self, Asker, Effect};
use outrigger_semantics::{NotStored, Recency, update};
use outrigger_store::Entry;
use outrigger_store::entry::LogSpan;
use outrigger_telemetry::Outcome;

use crate::coalesce::flight::Resolution;
use crate::error::UpstreamError;
use crate::pipeline::answer::{Answer, Reply, Upgrade};
use crate::pipeline::exchange::with_interims;
use crate::pipeline::fetch::{Storing, of_post};
use crate::pipeline::plan::Forward;
use crate::pipeline::request::{Payload, RequestContext, RequestView};
use crate::pipeline::stale_if_error::may_serve_on_error;
use crate::upgrade::UNREQUESTED;
use crate::upstream::{UpstreamRequest, UpstreamResponse};
use write::{Told, Write, Written, is_own_host};

/// What is reported of a forwarded request (RFC 9211 §2.2, §2.8).
#[derive(Clone, Copy)]
struct Reported {
    outcome: Outcome,
    fwd: Forwarded,
    detail: Option<&'static str>,
}

impl Reported {
    fn of(forward: &Forward) -> Self {
        let (outcome, fwd, detail) = match forward {
            Forward::Bypass(why @ Bypass::Method) => {
                (Outcome::Bypass, Forwarded::Method, Some(why.as_str()))
            }
            Forward::Bypass(why) => (Outcome::Bypass, Forwarded::Bypass, Some(why.as_str())),
            Forward::Pass(why, reason) => {
                let detail = reason.map_or(Outcome::Pass.as_str(), NotStored::as_pass);
                (Outcome::Pass, *why, Some(detail))
            }
            Forward::Head(_, why, _) => (Outcome::Miss, *why, None),
        };
        Reported { outcome, fwd, detail }
    }
}

/// Forwards a request and waits for the response head.
pub(crate) async fn forward(
    context: &Arc<RequestContext>,
    request: RequestView<'_>,
    mut payload: Payload,
    forward: Forward,
) -> Answer {
    let reported = Reported::of(&forward);
    let bypasses = matches!(forward, Forward::Bypass(_));
    let write = bypasses.then(|| Write::of(context)).flatten();
    let writes = write.is_some();
    let consistency = write.as_ref().map(|write| write.consistency);
    // Before the request is sent, so that a purge that comes meanwhile is not missed.
    let before = (request.shared.log.applied(), request.may_miss_holds());
    let stored = match forward {
        Forward::Head(stored, _, cause) => {
            request.shared.metrics.count_miss(cause);
            stored
        }
        Forward::Bypass(_) | Forward::Pass(..) => None,
    };
    let body = payload.body.take();
    let sending = |interim| {
        let mut call = context.plain_request(body);
        if let Some(sent) = context.routing.sent_authority().filter(|_| bypasses) {
            // A signature may cover it, and what comes back is not stored.
            sent.clone_into(&mut call.authority);
        }
        call.interim = interim;
        send(context, call, write)
    };
    let (sent, told) = match with_interims(context, sending).await {
        Written::Sent(sent, told) => (sent, told),
        Written::Refused(error) => return Answer { consistency, ..unannounced(&error, reported) },
    };
    let answer = match sent {
        Err(error) => Answer::failed(Arc::new(error), stored, reported.fwd),
        Ok(response) if response.head.status == StatusCode::SWITCHING_PROTOCOLS => {
            switched(context, payload.upgrade, *response, reported)
        }
        // In a box, so that it does not make the future of all others larger.
        Ok(response) if writes => {
            Box::pin(store_for_get(context, request, response, reported, (before.0, told))).await
        }
        Ok(response) => received(context, request, response, reported, stored, before),
    };
    Answer { seen: told.last, consistency, ..answer }
}

/// The answer to a request that changes nothing, and what its response says of what is stored.
/// `born` and `unheard` are the position of the purge log before the request was sent, and whether
/// there may have been holds that this pod had not heard of.
fn received(
    context: &RequestContext,
    request: RequestView<'_>,
    response: Box<UpstreamResponse>,
    reported: Reported,
    stored: Option<Arc<Entry>>,
    (born, unheard): (Seq, bool),
) -> Answer {
    if reported.outcome == Outcome::Pass {
        learn(context, request, &response);
    }
    if let Some(stored) = &stored {
        if stands_in(request, stored, response.head.status) {
            return Answer::stored(Arc::clone(stored), Outcome::StaleIfError);
        }
        let request = RequestView { method: &Method::GET, ..request };
        let client = context.forwarded_for();
        let storing = Storing { request, unheard, client, lock: None };
        update_from_head(storing, stored, &response, born);
    }
    Answer::upstream(response, reported.outcome, reported.fwd, reported.detail)
}

/// The answer to a write, whose response may be one that a later GET can have: not where the purge log
/// has heard of anything else since `before`, the position at which the request was sent.
async fn store_for_get(
    context: &Arc<RequestContext>,
    request: RequestView<'_>,
    response: Box<UpstreamResponse>,
    reported: Reported,
    (before, told): (Seq, Told),
) -> Answer {
    let Reported { outcome, fwd, detail } = reported;
    let (snapshot, authority) = (&context.active.snapshot, &context.routing.authority);
    let is_own = |url: &str| is_own_host(snapshot, authority, url);
    // Another purge since the request was sent may have meant what this response says.
    let alone = told.last.filter(|last| request.shared.log.is_run(before, told.events, *last));
    let stored = match alone {
        Some(born) => of_post::store(context, response, is_own, born).await,
        None => Err(response),
    };
    match stored {
        Err(response) => Answer::upstream(response, outcome, fwd, detail),
        Ok((reader, Resolution::Streaming(head))) => {
            let answer = Answer::new(Reply::Fetched(reader, head), outcome);
            Answer { fwd: Some(fwd), detail, ..answer }
        }
        Ok(_) => Answer::failed(Arc::new(UpstreamError::Aborted), None, fwd),
    }
}

/// Sends the request. A write runs in a task of its own: a client that leaves in the middle of it
/// must not take the invalidation along.
async fn send(context: &RequestContext, call: UpstreamRequest, write: Option<Write>) -> Written {
    match write {
        None => {
            Written::Sent(context.worker.upstream.call(call).await.map(Box::new), Told::default())
        }
        Some(write) => tokio::spawn(write.carry_out(call))
            .await
            .unwrap_or(Written::Sent(Err(UpstreamError::Aborted), Told::default())),
    }
}

/// The write could not be announced to the other pods, and was not sent.
fn unannounced(error: &LogError, reported: Reported) -> Answer {
    tracing::debug!(%error, "a write that others must know of was refused");
    let answer = Answer::new(Reply::Unannounced, Outcome::Unwritten);
    Answer { fwd: Some(reported.fwd), detail: Some("purge-log"), ..answer }
}

/// A 101: both connections, if the client asked for that.
fn switched(
    context: &RequestContext,
    client: Option<OnUpgrade>,
    mut response: UpstreamResponse,
    reported: Reported,
) -> Answer {
    let server = response.head.extensions.remove::<OnUpgrade>();
    let (true, Some(server), Some(client), Some(_)) =
        (context.routing.upgrade, server, client, &response.protocol)
    else {
        let endpoint = context.routing.authority.clone();
        let error = UpstreamError::Invalid { endpoint, reason: UNREQUESTED.to_owned() };
        return Answer::failed(Arc::new(error), None, reported.fwd);
    };
    let shared = Arc::clone(&context.worker.shared);
    let upgrade = Upgrade { upstream: response, client, server, shared };
    let answer = Answer::new(Reply::Upgraded(Box::new(upgrade)), Outcome::Upgraded);
    Answer { fwd: Some(reported.fwd), detail: reported.detail, ..answer }
}

/// Forgets that a key is not storable, if this response of it could have been stored. The next
/// request then fetches through the store again.
fn learn(context: &RequestContext, request: RequestView<'_>, response: &UpstreamResponse) {
    // A body of unknown length may be too large again.
    let known = http_body::Body::size_hint(&response.body).exact().is_some()
        || request.passed_since() != Some(NotStored::TooLarge);
    let client = context.forwarded_for();
    let storing = Storing { request, unheard: false, client, lock: None };
    if known && storing.judge(response).is_ok() {
        request.shared.passed.forget(request.key.digest());
    }
}

/// What a HEAD response says of the stored response to GET, and what follows of that
/// (RFC 9111 §4.3.5).
fn update_from_head(storing: Storing<'_>, stored: &Entry, response: &UpstreamResponse, born: Seq) {
    let UpstreamResponse { head, exchange, .. } = response;
    // A 304 speaks of what the client has.
    if stored.part.is_some() || head.status == StatusCode::NOT_MODIFIED {
        return;
    }
    let answer = if head.status.is_server_error() {
        supersede::Answer::ServerError
    } else if stored.status == head.status && update::head_agrees(&head.headers, &stored.headers) {
        supersede::Answer::Confirms
    } else {
        supersede::Answer::Unstorable
    };
    let personal = storing.request.route.cookies.has_credentials(storing.request.headers);
    let asker = match Asker::of_get(head.status, personal) {
        Asker::Client => Asker::Client,
        _ => Asker::Head,
    };
    let recency = Recency::of(&head.headers, *exchange);
    let (_, effect) = storing.answered(stored, recency, answer, asker);
    // What is invalid takes a validator to come into use again.
    let usable = !stored.lifetimes.invalid || head.headers.contains_key(ETAG);
    if effect == Effect::Freshen && usable {
        let log = LogSpan { born, seen: stored.seen_seq.max(born) };
        if let Ok(entry) = storing.freshened(stored, &head.headers, *exchange, log) {
            storing.keep(&entry);
        }
    }
}

/// Whether the stored response is served in place of this answer to HEAD (RFC 5861 §4).
fn stands_in(request: RequestView<'_>, stored: &Arc<Entry>, status: StatusCode) -> bool {
    request.route.serves_stale_for(status) && may_serve_on_error(request, stored)
}
