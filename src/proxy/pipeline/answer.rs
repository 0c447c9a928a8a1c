//! What the stages decide about a request. `respond` alone turns it into a response.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use outrigger_coherence::Seq;
use outrigger_policy::values::Consistency;
use outrigger_semantics::cache_status::Forwarded;
use outrigger_semantics::range::ByteRange;
use outrigger_store::Entry;
use outrigger_telemetry::Outcome;

use crate::coalesce::flight::{FlightHead, Reader};
use crate::error::UpstreamError;
use crate::state::Shared;
use crate::upstream::UpstreamResponse;

/// What a request is answered with.
pub(crate) enum Reply {
    /// A stored response.
    Stored(Arc<Entry>),
    /// A range out of a stored part (RFC 9111 §3.3) of a representation with so many bytes.
    StoredPart(Arc<Entry>, ByteRange, u64),
    /// A response that other requests may share, as its bytes arrive.
    Fetched(Reader, Arc<FlightHead>),
    /// A response of the upstream for this client alone, its fields cleaned.
    Upstream(Box<UpstreamResponse>),
    /// The upstream's 101; bytes are exchanged between both connections from then on.
    Upgraded(Box<Upgrade>),
    /// The upstream gave no usable response. With the stored response that may be served instead,
    /// if stale-if-error allows it.
    Failed(Arc<UpstreamError>, Option<Arc<Entry>>),
    /// Nothing is stored, and the client wants nothing else (RFC 9111 §5.2.1.7).
    OnlyIfCached,
    /// A write that could not be announced to the other pods. It was not sent.
    Unannounced,
}

/// A 101 with both connections.
pub(crate) struct Upgrade {
    /// The upstream's response.
    pub(crate) upstream: UpstreamResponse,
    /// The client's connection.
    pub(crate) client: OnUpgrade,
    /// The upstream's connection.
    pub(crate) server: OnUpgrade,
    /// Where both count as open until they end.
    pub(crate) shared: Arc<Shared>,
}

/// A reply with what metrics, logs and `Cache-Status` report about it.
pub(crate) struct Answer {
    /// The reply.
    pub(crate) reply: Reply,
    /// How the request ended.
    pub(crate) outcome: Outcome,
    /// Why the request went to the upstream (RFC 9211 §2.2).
    pub(crate) fwd: Option<Forwarded>,
    /// The detail of `Cache-Status`, where the reply itself tells none (RFC 9211 §2.8).
    pub(crate) detail: Option<&'static str>,
    /// Position of the purge log that the response may reflect, where that is known.
    pub(crate) seen: Option<Seq>,
    /// How coherent the answer has to be, where that is more than its route asks for.
    pub(crate) consistency: Option<Consistency>,
    /// The position that the client's session is told, on causal routes.
    pub(crate) session: Option<Seq>,
}

impl Answer {
    /// A reply that needs no upstream.
    pub(crate) fn new(reply: Reply, outcome: Outcome) -> Self {
        Answer {
            reply,
            outcome,
            fwd: None,
            detail: None,
            seen: None,
            consistency: None,
            session: None,
        }
    }

    /// A stored response.
    pub(crate) fn stored(entry: Arc<Entry>, outcome: Outcome) -> Self {
        let seen = Some(entry.seen_seq);
        Answer { seen, ..Answer::new(Reply::Stored(entry), outcome) }
    }

    /// A failed request to the upstream, with what is stored.
    pub(crate) fn failed(
        error: Arc<UpstreamError>,
        stored: Option<Arc<Entry>>,
        fwd: Forwarded,
    ) -> Self {
        let outcome = error.outcome();
        Answer { fwd: Some(fwd), ..Answer::new(Reply::Failed(error, stored), outcome) }
    }

    /// The upstream's response for this client alone.
    pub(crate) fn upstream(
        upstream: Box<UpstreamResponse>,
        outcome: Outcome,
        fwd: Forwarded,
        detail: Option<&'static str>,
    ) -> Self {
        Answer { fwd: Some(fwd), detail, ..Answer::new(Reply::Upstream(upstream), outcome) }
    }
}
