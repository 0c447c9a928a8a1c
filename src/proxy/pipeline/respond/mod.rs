//! The one place that turns a decision into a response. It decides nothing about the cache itself.

mod own;
mod ranges;
mod stored;

use http::header::{CACHE_STATUS, CONNECTION, UPGRADE};
use http::{HeaderValue, Response};
use outrigger_semantics::cache_status::CacheStatus;
use outrigger_telemetry::Outcome;

use crate::body::{ResponseBody, StreamedBody};
use crate::pipeline::admit::Refusal;
use crate::pipeline::answer::{Answer, Reply, Upgrade};
use crate::pipeline::request::RequestView;
use crate::pipeline::trust;
use crate::upgrade::tunnel;
use crate::upstream::UpstreamResponse;

pub(crate) use own::health;

/// Turns the answer to a request into its response.
pub(crate) fn respond(request: RequestView<'_>, answer: Answer) -> Response<ResponseBody> {
    let Answer { reply, outcome, fwd, detail, session, .. } = answer;
    let forwarded = CacheStatus { fwd, detail, ..CacheStatus::default() };
    let tell = |response, status| with_status(request, response, status);
    let mut response = match reply {
        Reply::Stored(entry) => {
            let status = value(request, stored::status(&entry, request.now, outcome));
            stored::entry(request, &entry, status)
        }
        Reply::StoredPart(entry, range, length) => {
            let status = value(request, stored::status(&entry, request.now, outcome));
            stored::part(request, &entry, range, length, status)
        }
        Reply::Fetched(reader, head) => {
            let (now, collapsed) = (request.shared.clock.now(), outcome == Outcome::Collapsed);
            let fwd_status = Some(head.status.as_u16());
            let ttl = Some(head.lifetimes.ttl_secs(now));
            let status = CacheStatus { collapsed, fwd_status, ttl, stored: true, ..forwarded };
            tell(stored::fetched(request, reader, &head, collapsed, now), status)
        }
        Reply::Upstream(upstream) => {
            let fwd_status = Some(upstream.head.status.as_u16());
            tell(streamed(*upstream), CacheStatus { fwd_status, ..forwarded })
        }
        Reply::Upgraded(upgrade) => {
            let status = CacheStatus { fwd_status: Some(101), ..forwarded };
            tell(upgraded(*upgrade), status)
        }
        Reply::Failed(error) => {
            tracing::debug!(%error, "upstream failed");
            let status = CacheStatus { detail: Some(error.code()), ..forwarded };
            tell(own::upstream_failed(&error), status)
        }
        Reply::OnlyIfCached => {
            let detail = Some(Outcome::OnlyIfCached.as_str());
            tell(own::only_if_cached(), CacheStatus { detail, ..CacheStatus::default() })
        }
        Reply::Unannounced => tell(own::unannounced(), forwarded),
    };
    if let Some(seen) = session {
        trust::tell(&mut response, request.headers, seen);
    }
    response
}

/// A request that is not passed on.
pub(crate) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let status = CacheStatus { detail: Some(refusal.detail), ..CacheStatus::default() };
    let mut response = own::refused(refusal);
    response.headers_mut().append(CACHE_STATUS, status.to_value());
    response
}

/// `Cache-Status`, with the key where that is shown.
fn value(request: RequestView<'_>, status: CacheStatus<'_>) -> HeaderValue {
    if !request.shared.settings.show_key {
        return status.to_value();
    }
    let key = request.key.display();
    CacheStatus { key: Some(&key), ..status }.to_value()
}

fn with_status(
    request: RequestView<'_>,
    mut response: Response<ResponseBody>,
    status: CacheStatus<'_>,
) -> Response<ResponseBody> {
    response.headers_mut().append(CACHE_STATUS, value(request, status));
    response
}

/// The upstream's response, whose fields are clean already.
fn streamed(upstream: UpstreamResponse) -> Response<ResponseBody> {
    let UpstreamResponse { mut head, body, .. } = upstream;
    let mut response = Response::new(ResponseBody::Upstream(Box::new(StreamedBody(body))));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.extensions.remove::<hyper::ext::ReasonPhrase>() {
        response.extensions_mut().insert(reason);
    }
    response
}

/// A 101, after which both connections are one.
fn upgraded(upgrade: Upgrade) -> Response<ResponseBody> {
    let Upgrade { upstream, protocol, client, server, open } = upgrade;
    let mut response = streamed(upstream);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    tunnel(client, server, open);
    response
}
