//! Forwarding what the store has no part in: other methods, upgrades, routes that are switched
//! off, keys whose responses are not storable, and HEAD without a stored response. What comes back
//! may update or invalidate what is stored.

use std::sync::Arc;

use http::StatusCode;
use http::header::UPGRADE;
use outrigger_coherence::LogError;
use outrigger_policy::snapshot::Bypass;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::{storable, update};
use outrigger_store::Entry;
use outrigger_store::entry::LogSpan;
use outrigger_telemetry::Outcome;

use crate::pipeline::answer::{Answer, Reply, Upgrade};
use crate::pipeline::fetch::Fetch;
use crate::pipeline::plan::Forward;
use crate::pipeline::request::{Payload, RequestContext};
use crate::pipeline::stale_if_error;
use crate::pipeline::upstream_request::{clean, with_interims};
use crate::pipeline::write::Written;
use crate::serve::Open;
use crate::upstream::{Call, UpstreamError, UpstreamResponse};

/// Forwards a request and waits for the response head.
pub(crate) async fn forward(
    context: &Arc<RequestContext>,
    mut payload: Payload,
    forward: Forward,
) -> Answer {
    let (interim, interims) = context.interims();
    let request = Call { interim, ..context.plain_request(payload.body.take()) };
    let upstream = &context.worker.upstream;
    let client = &context.client;
    match forward {
        Forward::Bypass(why) => {
            let sent = with_interims(client, interims, upstream.call(request)).await;
            bypassed(context, payload, sent, why)
        }
        Forward::Write(write, why) => {
            let written = tokio::spawn(write.carry_out(request));
            match with_interims(client, interims, written).await {
                Ok(Written::Refused(error)) => unannounced(&error, why),
                Ok(Written::Sent(sent, seen)) => {
                    Answer { seen, ..bypassed(context, payload, sent.map(|sent| *sent), why) }
                }
                Err(_) => bypassed(context, payload, Err(UpstreamError::Aborted), why),
            }
        }
        Forward::Pass(why) => match with_interims(client, interims, upstream.call(request)).await {
            Ok(response) => passed(context, payload, response, why),
            Err(error) => Answer::failed(Arc::new(error), why),
        },
        Forward::Head(stored, why) => {
            let fetch = Fetch::new(context, stored.clone());
            let born = context.shared().log.applied();
            match with_interims(client, interims, upstream.call(request)).await {
                Ok(mut response) => {
                    clean(context.shared(), &mut response);
                    update_from_head(&fetch, stored.as_deref(), &response, born);
                    Answer::upstream(Box::new(response), Outcome::Miss, why, None)
                }
                Err(error) => stale_if_error::answer(context.view(), stored, Arc::new(error), why),
            }
        }
    }
}

/// Why a request was forwarded past the store (RFC 9211 §2.2).
fn forwarded(why: Bypass) -> Forwarded {
    if why == Bypass::Method { Forwarded::Method } else { Forwarded::Bypass }
}

fn bypassed(
    context: &RequestContext,
    payload: Payload,
    sent: Result<UpstreamResponse, UpstreamError>,
    why: Bypass,
) -> Answer {
    let fwd = forwarded(why);
    match sent {
        Ok(response) => complete(context, payload, response, (Outcome::Bypass, fwd, why.as_str())),
        Err(error) => Answer::failed(Arc::new(error), fwd),
    }
}

/// A response of a key that is remembered as not storable. If it could have been stored after all,
/// the next request fetches through the store again.
fn passed(
    context: &RequestContext,
    payload: Payload,
    response: UpstreamResponse,
    why: Forwarded,
) -> Answer {
    let storable = {
        let UpstreamResponse { head, body, exchange } = &response;
        let (facts, rules) = (context.view().facts(), &context.route().store);
        // A body of unknown length may have been what was too large.
        let length = http_body::Body::size_hint(body).exact();
        let bytes_max = context.shared().settings.object_bytes_max;
        storable::decide(facts, head.status, &head.headers, *exchange, rules).is_ok()
            && length.is_some_and(|length| length <= bytes_max)
    };
    if storable {
        context.shared().hit_for_miss.invalidate(&context.key.digest());
    }
    complete(context, payload, response, (Outcome::Pass, why, Outcome::Pass.as_str()))
}

/// The upstream's response, or its connection after a 101 that the client asked for.
fn complete(
    context: &RequestContext,
    payload: Payload,
    mut response: UpstreamResponse,
    status: (Outcome, Forwarded, &'static str),
) -> Answer {
    let (outcome, fwd, detail) = status;
    if response.head.status != StatusCode::SWITCHING_PROTOCOLS {
        clean(context.shared(), &mut response);
        return Answer::upstream(Box::new(response), outcome, fwd, Some(detail));
    }
    let server = response.head.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let protocol = response.head.headers.get(UPGRADE).cloned();
    let (true, Some(server), Some(client), Some(protocol)) =
        (context.routing.upgrade, server, payload.upgrade, protocol)
    else {
        let error = UpstreamError::unwanted_switch(&context.routing.authority);
        return Answer::failed(Arc::new(error), fwd);
    };
    clean(context.shared(), &mut response);
    let open = Open::count(&context.worker.shared);
    let reply =
        Reply::Upgraded(Box::new(Upgrade { upstream: response, protocol, client, server, open }));
    Answer { fwd: Some(fwd), detail: Some(detail), ..Answer::new(reply, Outcome::Upgraded) }
}

/// Other pods must know of the write and could not be told: it was not sent.
fn unannounced(error: &LogError, why: Bypass) -> Answer {
    tracing::debug!(%error, "a write that others must know of was refused");
    let answer = Answer::new(Reply::Unannounced, Outcome::Unwritten);
    Answer { fwd: Some(forwarded(why)), detail: Some("purge-log"), ..answer }
}

/// A HEAD response updates the stored response if it agrees with it, and invalidates it if not (RFC
/// 9111 §4.3.5).
fn update_from_head(
    fetch: &Fetch,
    stored: Option<&Entry>,
    response: &UpstreamResponse,
    born: outrigger_coherence::Seq,
) {
    let UpstreamResponse { head, exchange, .. } = response;
    let Some(stored) = stored.filter(|stored| stored.part.is_none()) else { return };
    if head.status != stored.status {
        return;
    }
    if !update::head_agrees(&head.headers, &stored.headers) {
        fetch.shared().memory.remove(stored.digest);
        return;
    }
    let log = LogSpan { born, seen: stored.seen_seq.max(born) };
    if let Ok(entry) = fetch.freshened(stored, &head.headers, *exchange, log) {
        fetch.keep(&entry);
    }
}
