//! Forwarding what the store has no part in: other methods, upgrades, routes that are switched
//! off, and keys known not to be cacheable. Successful unsafe requests invalidate (RFC 9111 §4.4).

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use outrigger_coherence::{Matcher, Mode, PurgeRequest};
use outrigger_policy::RequestTarget;
use outrigger_policy::key::{canonical_uri, digest};
use outrigger_policy::snapshot::{Bypass, RouteQuery};
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_semantics::storable::{self, RequestView};
use outrigger_semantics::{invalidate, tags};
use outrigger_telemetry::Outcome;

use crate::pipeline::call::with_interims;
use crate::pipeline::job::{Answer, Job};
use crate::pipeline::respond;
use crate::serve::Open;
use crate::upgrade::tunnel;
use crate::upstream::{UpstreamError, UpstreamResponse};

/// Forwards a request past the store.
pub(crate) async fn bypass(job: &mut Job, why: Bypass) -> Answer {
    let fwd = if why == Bypass::Method { Forwarded::Method } else { Forwarded::Bypass };
    let status =
        CacheStatus { fwd: Some(fwd), detail: Some(why.as_str()), ..CacheStatus::default() };
    forward(job, status, Outcome::Bypass).await
}

/// Forwards a request whose response is known not to be storable.
pub(crate) async fn known_uncacheable(job: &mut Job, fwd: Forwarded) -> Answer {
    let detail = Some(Outcome::Pass.as_str());
    forward(job, CacheStatus { fwd: Some(fwd), detail, ..CacheStatus::default() }, Outcome::Pass)
        .await
}

/// Forwards a request as it is and streams the response back.
pub(crate) async fn forward(job: &mut Job, status: CacheStatus<'_>, outcome: Outcome) -> Answer {
    match exchange(job).await {
        Ok(upstream) => finish(job, upstream, status, outcome).await,
        Err(error) => failed(job, &error, status),
    }
}

/// Sends the request as it is and waits for the response head.
pub(crate) async fn exchange(job: &mut Job) -> Result<UpstreamResponse, UpstreamError> {
    let mut call = job.plain_call();
    let interims = job.interims().map(|(sender, receiver)| {
        call.interim = Some(sender);
        receiver
    });
    with_interims(&job.peer, interims, job.worker.upstream.call(call)).await
}

/// An answer for a failed upstream.
pub(crate) fn failed(job: &Job, error: &UpstreamError, status: CacheStatus<'_>) -> Answer {
    tracing::debug!(%error, "upstream failed");
    let mut response = respond::upstream_failed(error);
    job.tell(&mut response, CacheStatus { detail: Some(error.code()), ..status });
    Answer { response, outcome: error.outcome() }
}

async fn finish(
    job: &mut Job,
    upstream: UpstreamResponse,
    status: CacheStatus<'_>,
    outcome: Outcome,
) -> Answer {
    if upstream.head.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(job, upstream, status);
    }
    if invalidate::invalidates(&job.parts.method, upstream.head.status) {
        invalidate_stored(job, &upstream.head.headers).await;
    }
    if outcome == Outcome::Pass && could_be_stored(job, &upstream) {
        job.worker.shared.uncacheable.invalidate(&job.key.digest());
    }
    let fwd_status = Some(upstream.head.status.as_u16());
    let response = job.streamed(upstream, CacheStatus { fwd_status, ..status });
    Answer { response, outcome }
}

/// Whether the response of a key that is remembered as not cacheable could have been stored: then
/// the next request fetches through the cache again.
fn could_be_stored(job: &Job, upstream: &UpstreamResponse) -> bool {
    let request = RequestView {
        method: &job.parts.method,
        headers: &job.parts.headers,
        directives: job.directives,
        identity_in_key: job.key.holds_identity(),
    };
    let (status, headers) = (upstream.head.status, &upstream.head.headers);
    let decided = storable::decide(request, status, headers, upstream.exchange, &job.route.store);
    let bytes_max = job.worker.shared.settings.object_bytes_max;
    // A body of unknown length may have been what was too large.
    let length = http_body::Body::size_hint(&upstream.body).exact();
    decided.is_ok() && length.is_some_and(|length| length <= bytes_max)
}

/// Hands the connection over, if the client asked for that and nothing else.
fn switch(job: &mut Job, mut upstream: UpstreamResponse, status: CacheStatus<'_>) -> Answer {
    let theirs = upstream.head.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let ours = job.parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let protocol = upstream.head.headers.get(http::header::UPGRADE).cloned();
    let (true, Some(theirs), Some(ours), Some(protocol)) = (job.upgrade, theirs, ours, protocol)
    else {
        let reason = "a 101 that nobody asked for".to_owned();
        let error = UpstreamError::Invalid { endpoint: job.authority.clone(), reason };
        return failed(job, &error, status);
    };
    let fwd_status = Some(101);
    let mut response = job.streamed(upstream, CacheStatus { fwd_status, ..status });
    let headers = response.headers_mut();
    headers.insert(http::header::UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    tunnel(ours, theirs, Open::count(&job.worker.shared));
    Answer { response, outcome: Outcome::Upgraded }
}

/// Invalidates the target URI, same-origin `Location` and `Content-Location`, and the groups that
/// the response names (RFC 9111 §4.4, RFC 9875 §3).
async fn invalidate_stored(job: &Job, response: &HeaderMap) {
    let target = job.target();
    let mut paths = vec![target.as_str().to_owned()];
    paths.extend(invalidate::further_targets(&job.authority, target.as_str(), response));
    for path in paths {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        // The stored responses were keyed by the route that serves GET.
        let route = job.active.snapshot.route(RouteQuery {
            host: &job.authority,
            path,
            method: &Method::GET,
            headers: &job.parts.headers,
        });
        let target = RequestTarget { scheme: "http", authority: &job.authority, path, query };
        let uri = canonical_uri(target, &route.key);
        let uri_digest = digest(&uri);
        let matcher = Matcher::Url(String::from_utf8_lossy(&uri).into_owned());
        purge(job, matcher, uri_digest).await;
    }
    for group in tags::invalidated_groups(response) {
        purge(job, Matcher::Tag(group), 0).await;
    }
}

async fn purge(job: &Job, matcher: Matcher, uri_digest: u128) {
    let shared = &job.worker.shared;
    shared.metrics.count_purge(matcher.kind(), Mode::Hard.as_str());
    let request = PurgeRequest { matcher, mode: Mode::Hard, by: "unsafe-method", uri_digest };
    if let Err(error) = shared.log.purge(request).await {
        tracing::warn!(%error, "an unsafe request could not invalidate");
    }
}
