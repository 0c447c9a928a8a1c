//! Requests that change something: what is stored for their target is invalidated, by all pods, in
//! the way that the route's consistency asks for (RFC 9111 §4.4).

use http::Method;
use outrigger_coherence::{Event, HoldGuard, LogError, Matcher, Mode, PurgeRequest, Purged, Seq};
use outrigger_policy::RequestTarget;
use outrigger_policy::Route;
use outrigger_policy::key::{canonical_uri, digest};
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::values::Consistency;
use outrigger_semantics::{invalidate, tags};

use crate::pipeline::job::Job;

/// A write on its way to the upstream.
pub(crate) struct Writing {
    guard: Option<HoldGuard>,
    /// How coherent what it changes has to be.
    pub(crate) consistency: Consistency,
}

/// The route by which responses for a path are stored.
fn stored_by<'a>(job: &'a Job, path: &'a str) -> &'a Route {
    job.active.snapshot.route(RouteQuery {
        host: &job.authority,
        path,
        method: &Method::GET,
        headers: &job.parts.headers,
    })
}

fn url_purge(job: &Job, target: &str) -> PurgeRequest {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let route = stored_by(job, path);
    let target = RequestTarget { scheme: "http", authority: &job.authority, path, query };
    let uri = canonical_uri(target, &route.key);
    PurgeRequest {
        uri_digest: digest(&uri),
        matcher: Matcher::Url(String::from_utf8_lossy(&uri).into_owned()),
        mode: Mode::Hard,
        by: "unsafe-method",
        reason: None,
    }
}

/// Prepares an unsafe request: where pods must not disagree, all of them stop answering from what
/// is stored for its target before it is sent.
///
/// # Errors
/// When the others must know and cannot be told: then the request must not be sent.
pub(crate) async fn begin(job: &Job) -> Result<Writing, LogError> {
    let target = job.target();
    let route = stored_by(job, target.path());
    let consistency = route.consistency.max(job.route.consistency);
    let log = &job.worker.shared.log;
    let (Some(shared), false) = (log.as_shared(), consistency == Consistency::Eventual) else {
        return Ok(Writing { guard: None, consistency });
    };
    // A write that is in nobody's log could be seen through this pod, and then be unseen through
    // another: no session could tell of it.
    let everywhere = consistency == Consistency::Strong;
    let guard = shared.hold(url_purge(job, target.as_str()), everywhere).await?;
    Ok(Writing { guard: Some(guard), consistency })
}

/// Ends a write, whatever became of it: its target is purged if it may have been changed. Answers
/// the position that tells of it, if there is one.
pub(crate) async fn end(
    job: &Job,
    writing: Writing,
    response: Option<&http::response::Parts>,
) -> Option<Seq> {
    let mut last = None;
    let succeeded =
        response.is_some_and(|head| invalidate::invalidates(&job.parts.method, head.status));
    if let Some(guard) = writing.guard {
        // Its target has been voided already; whether it has changed nobody knows for certain.
        count(job, "url");
        note(&mut last, guard.complete().await);
    } else if succeeded {
        let request = url_purge(job, job.target().as_str());
        note(&mut last, purge(job, request).await);
    }
    let Some(head) = response.filter(|_| succeeded) else { return last };
    let target = job.target();
    for path in invalidate::further_targets(&job.authority, target.as_str(), &head.headers) {
        note(&mut last, purge(job, url_purge(job, &path)).await);
    }
    for group in tags::invalidated_groups(&head.headers) {
        let request = PurgeRequest {
            matcher: Matcher::Tag(group),
            mode: Mode::Hard,
            by: "unsafe-method",
            reason: None,
            uri_digest: 0,
        };
        note(&mut last, purge(job, request).await);
    }
    last
}

fn note(last: &mut Option<Seq>, purged: Purged) {
    if let Purged::Applied(Event { seq, .. }) = purged {
        *last = (*last).max(Some(seq));
    }
}

fn count(job: &Job, kind: &'static str) {
    job.worker.shared.metrics.count_purge(kind, Mode::Hard.as_str());
}

async fn purge(job: &Job, request: PurgeRequest) -> Purged {
    count(job, request.matcher.kind());
    job.worker.shared.log.purge(request).await
}
