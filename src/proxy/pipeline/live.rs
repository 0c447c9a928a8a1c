//! Explaining a URL against the running state: the policy's answer, and what the store holds.

use http::{HeaderMap, Method};
use outrigger_coherence::Verdict;
use outrigger_policy::explain::{Explanation, Question, explain};
use outrigger_policy::{CacheKey, RequestTarget};
use outrigger_semantics::reuse;
use outrigger_store::Lookup;
use outrigger_store::lookup::Wanted;

use crate::app::Shared;

/// What the store holds for a request, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// `hit`, `stale`, `purged`, `vary-miss` or `miss`.
    pub state: &'static str,
    /// Status of the stored response.
    pub status: Option<u16>,
    /// Age in seconds.
    pub age_seconds: Option<u64>,
    /// Freshness left in seconds; negative when stale.
    pub ttl_seconds: Option<i64>,
    /// Bytes of the body.
    pub body_bytes: Option<usize>,
    /// Position of the purge log when its fetch began.
    pub born_seq: Option<u64>,
    /// Whether the key is remembered as not cacheable.
    pub remembered_uncacheable: bool,
}

/// Explains a GET (or another method) for a URL.
pub fn explain_live(
    shared: &Shared,
    method: &Method,
    target: RequestTarget<'_>,
    headers: &HeaderMap,
) -> (Explanation, Live) {
    let active = shared.active();
    let now = shared.clock.now();
    let question = Question { method, target, headers, response: None, now };
    let explanation = explain(&active.snapshot, &question);
    let route = active.snapshot.route(outrigger_policy::snapshot::RouteQuery {
        host: target.authority,
        path: target.path,
        method,
        headers,
    });
    let key = CacheKey::build(target, headers, &route.key);
    let wanted = Wanted { digest: key.digest(), key: key.text(), headers };
    let mut live = Live {
        state: "miss",
        status: None,
        age_seconds: None,
        ttl_seconds: None,
        body_bytes: None,
        born_seq: None,
        remembered_uncacheable: shared.uncacheable.contains_key(&key.digest()),
    };
    match shared.memory.get(wanted) {
        Lookup::Hit(entry) => {
            let verdict = shared.log.verdict(&entry);
            let directives = route.request_directives(headers);
            let reuse = reuse::decide(&entry.lifetimes, &directives, now, verdict == Verdict::Soft);
            live.state = match (verdict, reuse) {
                (Verdict::Void, _) => "purged",
                (_, reuse::Reuse::Fresh) => "hit",
                _ => "stale",
            };
            live.status = Some(entry.status.as_u16());
            live.age_seconds = Some(entry.lifetimes.age_secs(now));
            live.ttl_seconds = Some(entry.lifetimes.ttl_secs(now));
            live.body_bytes = Some(entry.body.len());
            live.born_seq = Some(entry.born_seq);
        }
        Lookup::Miss(outrigger_store::Miss::Variant) => live.state = "vary-miss",
        _ => {}
    }
    (explanation, live)
}
