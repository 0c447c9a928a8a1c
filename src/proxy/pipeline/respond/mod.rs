//! The one place that turns a decision into a response. It decides nothing about the cache itself.

mod own;
mod ranges;
mod status;
mod stored;

use http::header::{CACHE_STATUS, CONNECTION, UPGRADE};
use http::{HeaderName, HeaderValue, Response};
use outrigger_semantics::cache_status::CacheStatus;
use outrigger_telemetry::Outcome;

use crate::body::{ResponseBody, StreamedBody};
use crate::pipeline::admit::Refusal;
use crate::pipeline::answer::{Answer, Reply, Upgrade};
use crate::pipeline::request::RequestView;
use crate::pipeline::trust::SESSION;
use crate::upgrade::tunnel;
use crate::upstream::UpstreamResponse;

pub(crate) use own::health;

/// Turns the answer to a request into its response.
pub(crate) fn respond(request: RequestView<'_>, answer: Answer) -> Response<ResponseBody> {
    let status = status::value(request, &answer);
    let Answer { reply, outcome, session, .. } = answer;
    let mut response = match reply {
        Reply::Stored(entry) => stored::entry(request, &entry, status),
        Reply::StoredPart(entry, range, length) => {
            stored::part(request, &entry, range, length, status)
        }
        Reply::Fetched(reader, head) => {
            let collapsed = outcome == Outcome::Collapsed;
            with(stored::fetched(request, reader, &head, collapsed), CACHE_STATUS, status)
        }
        Reply::Upstream(upstream) => with(streamed(*upstream), CACHE_STATUS, status),
        Reply::Upgraded(upgrade) => with(upgraded(*upgrade), CACHE_STATUS, status),
        Reply::Failed(error, _) => {
            tracing::debug!(%error, "upstream failed");
            with(own::upstream_failed(&error), CACHE_STATUS, status)
        }
        Reply::OnlyIfCached => with(own::only_if_cached(), CACHE_STATUS, status),
        Reply::Unannounced => with(own::unannounced(), CACHE_STATUS, status),
    };
    if let Some(seen) = session {
        response.headers_mut().insert(SESSION, HeaderValue::from(seen));
    }
    response
}

/// A request that is not passed on.
pub(crate) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let status = CacheStatus { detail: Some(refusal.detail), ..CacheStatus::default() };
    with(own::refused(refusal), CACHE_STATUS, status.to_value())
}

fn with(
    mut response: Response<ResponseBody>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<ResponseBody> {
    response.headers_mut().append(name, value);
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
