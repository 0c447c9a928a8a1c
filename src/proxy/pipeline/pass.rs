//! Forwarding what the store has no part in: other methods, upgrades, routes that are switched
//! off, and keys known not to be cacheable. Successful unsafe requests invalidate (RFC 9111 §4.4).

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use outrigger_coherence::LogError;
use outrigger_policy::snapshot::Bypass;
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_semantics::storable::{self, RequestView};
use outrigger_telemetry::Outcome;
use tokio::sync::mpsc;

use crate::client::OpenConnection;
use crate::pipeline::call::with_interims;
use crate::pipeline::job::{Answer, Job};
use crate::pipeline::respond;
use crate::pipeline::unsafe_method::{Write, Written};
use crate::upgrade::tunnel;
use crate::upstream::{Call, Interim, UpstreamError, UpstreamResponse};

/// Forwards a request past the store.
pub(crate) async fn bypass(job: &mut Job, why: Bypass) -> Answer {
    let fwd = if why == Bypass::Method { Forwarded::Method } else { Forwarded::Bypass };
    let status =
        CacheStatus { fwd: Some(fwd), detail: Some(why.as_str()), ..CacheStatus::default() };
    let Some(write) = Write::of(job) else { return forward(job, status, Outcome::Bypass).await };
    job.consistency = write.consistency;
    let (call, interims) = prepare(job);
    let written = tokio::spawn(write.carry_out(call));
    match with_interims(&job.peer, interims, written).await {
        Ok(Written::Refused(error)) => not_written(job, &error, status),
        Ok(Written::Sent(Ok(upstream), seen)) => {
            Answer { seen, ..finish(job, *upstream, status, Outcome::Bypass) }
        }
        Ok(Written::Sent(Err(error), seen)) => Answer { seen, ..failed(job, &error, status) },
        Err(_) => failed(job, &UpstreamError::Aborted, status),
    }
}

/// The others cannot be told of a write that they must know of: it is not made.
fn not_written(job: &Job, error: &LogError, status: CacheStatus<'_>) -> Answer {
    tracing::debug!(%error, "a write that others must know of was refused");
    let mut response = respond::unavailable("the purge log cannot be reached");
    job.tell(&mut response, CacheStatus { detail: Some("purge-log"), ..status });
    Answer::new(response, Outcome::Unwritten)
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
        Ok(upstream) => finish(job, upstream, status, outcome),
        Err(error) => failed(job, &error, status),
    }
}

/// Sends the request as it is and waits for the response head.
pub(crate) async fn exchange(job: &mut Job) -> Result<UpstreamResponse, UpstreamError> {
    let (call, interims) = prepare(job);
    with_interims(&job.peer, interims, job.worker.upstream.call(call)).await
}

/// The request as a call, with where its 1xx responses come out.
fn prepare(job: &mut Job) -> (Call, Option<mpsc::Receiver<Interim>>) {
    let mut call = job.plain_call();
    let interims = job.interims().map(|(sender, receiver)| {
        call.interim = Some(sender);
        receiver
    });
    (call, interims)
}

/// An answer for a failed upstream.
pub(crate) fn failed(job: &Job, error: &UpstreamError, status: CacheStatus<'_>) -> Answer {
    tracing::debug!(%error, "upstream failed");
    let mut response = respond::upstream_failed(error);
    job.tell(&mut response, CacheStatus { detail: Some(error.code()), ..status });
    Answer::new(response, error.outcome())
}

fn finish(
    job: &mut Job,
    upstream: UpstreamResponse,
    status: CacheStatus<'_>,
    outcome: Outcome,
) -> Answer {
    if upstream.head.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(job, upstream, status);
    }
    if outcome == Outcome::Pass && could_be_stored(job, &upstream) {
        job.worker.shared.uncacheable.invalidate(&job.key.digest());
    }
    let fwd_status = Some(upstream.head.status.as_u16());
    let response = job.streamed(upstream, CacheStatus { fwd_status, ..status });
    Answer::new(response, outcome)
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
    tunnel(ours, theirs, OpenConnection::count(&job.worker.shared));
    Answer::new(response, Outcome::Upgraded)
}
