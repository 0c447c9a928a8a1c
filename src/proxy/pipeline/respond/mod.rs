//! The one place that turns a decision into a response. It decides nothing about the cache itself.

mod own;
mod ranges;
mod stored;

use bytes::Bytes;
use http::header::{CACHE_STATUS, CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use outrigger_semantics::UnixMillis;
use outrigger_semantics::cache_status::{CACHE_NAME, CacheStatus, Forwarded};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::body::response::{Broken, ResponseBody, StreamedBody};
use crate::pipeline::answer::{Answer, Reply, Upgrade};
use crate::pipeline::request::RequestView;
use crate::pipeline::trust::SESSION;
use crate::refusal::Refusal;
use crate::upgrade::tunnel;
use crate::upstream::UpstreamResponse;

pub(crate) use own::health;

/// Turns the answer to a request into its response.
pub(crate) fn respond(request: RequestView<'_>, answer: Answer) -> Response<ResponseBody> {
    let status = cache_status(request, &answer);
    let Answer { reply, outcome, session, .. } = answer;
    let mut response = match reply {
        Reply::Stored(entry) => stored::entry(request, &entry, status),
        Reply::Fetched(reader, head) => {
            let collapsed = outcome == Outcome::Collapsed;
            with(stored::fetched(request, reader, &head, collapsed), CACHE_STATUS, status)
        }
        Reply::StoredPart(entry, range, length) => {
            stored::part(request, &entry, range, length, status)
        }
        Reply::Upstream(upstream) => with(streamed(*upstream), CACHE_STATUS, status),
        Reply::Upgraded(upgrade) => with(upgraded(*upgrade), CACHE_STATUS, status),
        Reply::Failed(error, _) => {
            tracing::debug!(%error, "upstream failed");
            with(own::upstream_failed(request.headers, &error), CACHE_STATUS, status)
        }
        Reply::OnlyIfCached => with(own::only_if_cached(), CACHE_STATUS, status),
        Reply::Unannounced => with(own::unannounced(), CACHE_STATUS, status),
    };
    if let Some(seen) = session {
        response.headers_mut().insert(SESSION, HeaderValue::from(seen));
    }
    response
}

/// What is reported of an answer to its client (RFC 9211).
fn cache_status(request: RequestView<'_>, answer: &Answer) -> HeaderValue {
    let status = status_of(request, answer);
    if !request.shared.settings.show_key {
        return status.to_value();
    }
    let key = request.key.display();
    CacheStatus { key: Some(&key), ..status }.to_value()
}

fn status_of<'a>(request: RequestView<'_>, answer: &'a Answer) -> CacheStatus<'a> {
    let Answer { outcome, fwd, detail, .. } = *answer;
    let forwarded = CacheStatus { fwd, detail, ..CacheStatus::default() };
    match &answer.reply {
        Reply::Stored(entry) | Reply::StoredPart(entry, ..) => {
            status_of_stored(entry, request.now, outcome)
        }
        Reply::Fetched(_, head) => CacheStatus {
            fwd_status: Some(head.status.as_u16()),
            ttl: Some(head.lifetimes.ttl_secs(request.shared.clock.now())),
            stored: true,
            collapsed: outcome == Outcome::Collapsed,
            ..forwarded
        },
        Reply::Upstream(upstream) => {
            CacheStatus { fwd_status: Some(upstream.head.status.as_u16()), ..forwarded }
        }
        Reply::Upgraded(_) => CacheStatus { fwd_status: Some(101), ..forwarded },
        Reply::Failed(error, _) => CacheStatus { detail: Some(error.code()), ..forwarded },
        Reply::OnlyIfCached => {
            CacheStatus { detail: Some(outcome.as_str()), ..CacheStatus::default() }
        }
        Reply::Unannounced => forwarded,
    }
}

fn status_of_stored(entry: &Entry, now: UnixMillis, outcome: Outcome) -> CacheStatus<'static> {
    let (hit, fwd, fwd_status) = match outcome {
        Outcome::Revalidated => (false, Some(Forwarded::Stale), Some(304)),
        Outcome::StaleIfError => (false, Some(Forwarded::Stale), None),
        _ => (true, None, None),
    };
    CacheStatus {
        hit,
        fwd,
        fwd_status,
        ttl: Some(entry.lifetimes.ttl_secs(now)),
        stored: outcome == Outcome::Revalidated,
        collapsed: outcome == Outcome::Collapsed,
        key: None,
        detail: (outcome != Outcome::Hit).then(|| outcome.as_str()),
    }
}

/// The same response without its content, for HEAD (RFC 9110 §9.3.2). hyper leaves content out over
/// HTTP/1.1 alone. A fetch that the content came from goes on without this client.
pub(crate) fn head_only(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    let mut response = response.map(|_| ResponseBody::Full(Bytes::new()));
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    response
}

/// A request that is not passed on.
pub(crate) fn refused(refusal: Refusal) -> Response<ResponseBody> {
    let status = CacheStatus { detail: Some(refusal.detail), ..CacheStatus::default() };
    with(own::refused(refusal), CACHE_STATUS, status.to_value())
}

/// What is written in place of hyper's own response to a head that it cannot read, which is given;
/// with its status.
pub(crate) fn unreadable(hypers: &[u8]) -> (u16, Bytes) {
    let (status, detail) = match hypers.get(9..12) {
        Some(b"414") => (StatusCode::URI_TOO_LONG, "target-too-long"),
        Some(b"431") => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large"),
        _ => (StatusCode::BAD_REQUEST, "unreadable"),
    };
    let lines = hypers.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let date = lines.map(str::trim_end).find(|line| line.starts_with("date:"));
    let body = format!("refused: {detail}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
         connection: close\r\ncache-status: {CACHE_NAME}; detail={detail}\r\ncontent-length: {}\r\n\
         {}\r\n\r\n{body}",
        body.len(),
        date.unwrap_or("date: Thu, 01 Jan 1970 00:00:00 GMT"),
    );
    (status.as_u16(), Bytes::from(head))
}

/// A request that `Max-Forwards` lets go no further.
pub(crate) fn last_hop<B>(request: &Request<B>) -> Response<ResponseBody> {
    let detail = Some(Outcome::LastHop.as_str());
    let status = CacheStatus { detail, ..CacheStatus::default() };
    with(own::last_hop(request), CACHE_STATUS, status.to_value())
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
    let UpstreamResponse { mut head, body, protocol, .. } = upstream;
    let mut response =
        Response::new(ResponseBody::Upstream(Box::new(StreamedBody(body, Broken::default()))));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(protocol) = protocol {
        let headers = response.headers_mut();
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(reason) = head.extensions.remove::<hyper::ext::ReasonPhrase>() {
        response.extensions_mut().insert(reason);
    }
    response
}

/// A 101, after which both connections are one.
fn upgraded(upgrade: Upgrade) -> Response<ResponseBody> {
    let Upgrade { upstream, client, server, shared } = upgrade;
    let response = streamed(upstream);
    tunnel(client, server, &shared);
    response
}
