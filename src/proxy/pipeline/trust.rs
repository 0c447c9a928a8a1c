//! Whether a pod may answer from what is stored, by the consistency of the route: always
//! (`eventual`), when it knows all that the client has seen (`causal`), or while it holds a lease
//! (`strong`).

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use outrigger_coherence::{PurgeLog, Seq};
use outrigger_policy::values::Consistency;
use outrigger_semantics::UnixMillis;

use crate::pipeline::answer::Answer;
use crate::pipeline::request::RequestView;

/// The field by which a client tells what it has seen: a position of the purge log.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("outrigger-session");

/// How long a request waits for this pod to know what its client has seen.
pub(crate) const CATCH_UP_MAX: Duration = Duration::from_millis(50);
/// A position further ahead of the clock than this is ignored, microseconds.
const FUTURE_MICROS_MAX: u64 = 3_600_000_000;

/// Why the store may not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// The client has seen more than this pod knows.
    Behind(Seq),
    /// The pod holds no lease.
    NoLease,
    /// There may be writes under way that the pod has not heard of.
    Unheard,
    /// The route says that the response to this request replaces what is stored.
    Refresh,
}

impl Distrust {
    /// The stable name in `Cache-Status`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Behind(_) => "behind-session",
            Self::NoLease => "no-lease",
            Self::Unheard => "unheard-holds",
            Self::Refresh => "refresh",
        }
    }
}

/// Whether the store may answer.
pub(crate) fn check(
    log: &PurgeLog,
    consistency: Consistency,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Result<(), Distrust> {
    match consistency {
        Consistency::Eventual => Ok(()),
        _ if log.may_miss_holds() => Err(Distrust::Unheard),
        Consistency::Causal => match session(headers, now) {
            Some(seq) if !log.covers(seq) => Err(Distrust::Behind(seq)),
            _ => Ok(()),
        },
        Consistency::Strong if log.has_lease() => Ok(()),
        Consistency::Strong => Err(Distrust::NoLease),
    }
}

/// What a client has seen. What cannot be a position is taken as none: a client can only make its
/// own requests slower by it.
pub(crate) fn session(headers: &HeaderMap, now: UnixMillis) -> Option<Seq> {
    let text = headers.get(SESSION)?.to_str().ok()?.trim();
    let seq: Seq = text.parse().ok()?;
    let micros = u64::try_from(now.0).unwrap_or(0).saturating_mul(1000);
    (seq <= micros.saturating_add(FUTURE_MICROS_MAX)).then_some(seq)
}

/// Whether the response carries a session token: the route is causal, or the write concerned one.
fn tells_session(request: RequestView<'_>, answer: &Answer) -> bool {
    request.route.consistency == Consistency::Causal
        || answer.consistency == Some(Consistency::Causal)
}

/// Sets the session token, if the position of the answer is known: the later of that and the
/// client's own.
pub(crate) fn at_once(request: RequestView<'_>, mut answer: Answer) -> Answer {
    if tells_session(request, &answer) {
        let told = |seen| session(request.headers, request.now).unwrap_or(0).max(seen);
        answer.session = answer.seen.map(told);
    }
    answer
}

/// The same for every answer. If its position is not known, the log is asked.
pub(crate) async fn with_session(request: RequestView<'_>, mut answer: Answer) -> Answer {
    if answer.seen.is_none() && tells_session(request, &answer) {
        answer.seen = Some(request.shared.log.seen().await);
    }
    at_once(request, answer)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// After every position that the log of this process says.
    const NOW: UnixMillis = UnixMillis(4_000_000_000_000);

    fn with(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(SESSION, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn a_session_is_a_position_or_nothing() {
        assert_eq!(session(&with("17"), NOW), Some(17));
        for bad in ["", "-1", "x", "99999999999999999999999", "18446744073709551615"] {
            assert_eq!(session(&with(bad), NOW), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_log_of_one_process_knows_what_it_has_said() {
        let log = PurgeLog::local();
        assert_eq!(check(&log, Consistency::Strong, &HeaderMap::new(), NOW), Ok(()));
        assert_eq!(check(&log, Consistency::Causal, &with("0"), NOW), Ok(()));
        let later = log.applied() + 5;
        let mut headers = HeaderMap::new();
        headers.insert(SESSION, HeaderValue::from(later));
        assert_eq!(check(&log, Consistency::Causal, &headers, NOW), Err(Distrust::Behind(later)));
        assert_eq!(check(&log, Consistency::Eventual, &headers, NOW), Ok(()));
    }
}
