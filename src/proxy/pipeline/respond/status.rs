//! `Cache-Status` (RFC 9211): what is reported of an answer to its client.

use http::HeaderValue;
use outrigger_semantics::UnixMillis;
use outrigger_semantics::cache_status::{CacheStatus, Forwarded};
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::pipeline::answer::{Answer, Reply};
use crate::pipeline::request::RequestView;

/// The value of the field for an answer.
pub(super) fn value(request: RequestView<'_>, answer: &Answer) -> HeaderValue {
    let status = of(request, answer);
    if !request.shared.settings.show_key {
        return status.to_value();
    }
    let key = request.key.display();
    CacheStatus { key: Some(&key), ..status }.to_value()
}

fn of<'a>(request: RequestView<'_>, answer: &'a Answer) -> CacheStatus<'a> {
    let Answer { outcome, fwd, detail, .. } = *answer;
    let forwarded = CacheStatus { fwd, detail, ..CacheStatus::default() };
    match &answer.reply {
        Reply::Stored(entry) | Reply::StoredPart(entry, ..) => stored(entry, request.now, outcome),
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

fn stored(entry: &Entry, now: UnixMillis, outcome: Outcome) -> CacheStatus<'static> {
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
