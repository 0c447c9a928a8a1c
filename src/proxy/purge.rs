//! Purging on behalf of an operator: from what a person writes to events of the log.

use std::sync::Arc;

use outrigger_coherence::{Matcher, PurgeMode, PurgeRequest, Purged, TEXT_BYTES_MAX, Verdict};
use outrigger_policy::{Snapshot, Url};
use outrigger_semantics::tags::TAG_BYTES_MAX;
use outrigger_store::Entry;

use crate::matcher::{prefix_matchers, url_matcher};
use crate::state::Shared;

/// Keys of the memory tier that are looked at to count what a purge concerns.
const COUNTED_KEYS_MAX: usize = 1 << 20;

/// Which stored responses an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// Those for a URL, in every partition and variant.
    Url(String),
    /// Those that carry a tag.
    Tag(String),
    /// Those whose URL begins so.
    Prefix(String),
    /// All.
    All,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeCommand {
    /// Which stored responses.
    pub target: PurgeTarget,
    /// Hard or soft.
    pub mode: PurgeMode,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What a purge has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeResult {
    /// What became of its event. If it took several: of the last one, or queued if one of them is.
    pub purged: Purged,
    /// The stored responses that it met in this pod.
    pub here: Matched,
}

/// Stored responses of this pod's memory that a purge concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// How many there are that no earlier purge had invalidated.
    pub responses: usize,
    /// Whether the memory holds more keys than are looked at, so that there may be more.
    pub partial: bool,
}

/// Why a purge was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// The URL cannot be used.
    #[error("{0:?} is not a URL: write scheme, host and path, for example http://shop.svc/a?b=1")]
    Url(String),
    /// The prefix cannot be used.
    #[error(
        "{0:?} is not a prefix: write scheme, host and the beginning of the path, for example http://shop.svc/a"
    )]
    Prefix(String),
    /// It is longer than events may be.
    #[error("a prefix has at most {TEXT_BYTES_MAX} bytes")]
    PrefixTooLong,
    /// No stored response has such a tag.
    #[error(
        "a tag has at most {TAG_BYTES_MAX} bytes: a response with a longer one is not stored, so that nothing has this one"
    )]
    TagTooLong,
    /// The tag is empty.
    #[error("the tag is empty")]
    Tag,
    /// The process ended before the purge.
    #[error("the process is ending; purge again")]
    Ending,
}

/// Appends a purge to the log and applies it here. Before that, every key of the memory tier is looked
/// at to count what is concerned, at most 1,048,576, on a thread of its own. A caller that stops
/// waiting does not stop the purge.
///
/// # Errors
/// When the command cannot be understood.
pub async fn purge(shared: &Arc<Shared>, command: PurgeCommand) -> Result<PurgeResult, PurgeError> {
    check_purge(shared, &command)?;
    let shared = Arc::clone(shared);
    let purging = tokio::spawn(async move { count_and_purge(&shared, command).await });
    purging.await.unwrap_or(Err(PurgeError::Ending))
}

async fn count_and_purge(
    shared: &Arc<Shared>,
    command: PurgeCommand,
) -> Result<PurgeResult, PurgeError> {
    let counted = matchers(&shared.active().snapshot, &command.target)?;
    let here = count_here(shared, counted).await;
    // The policy may have changed meanwhile.
    let matchers = matchers(&shared.active().snapshot, &command.target)?;
    let mut result: Option<Purged> = None;
    for matcher in matchers {
        shared.metrics.count_purge(matcher.kind(), command.mode.as_str());
        let reason = command.reason.clone();
        let request = PurgeRequest { matcher, mode: command.mode, by: "admin", reason };
        let purged = shared.log.purge(request).await;
        result = Some(match result {
            Some(earlier) => earlier.and(purged),
            None => purged,
        });
    }
    // Each target has at least one matcher.
    Ok(PurgeResult { purged: result.unwrap_or(Purged::Queued), here })
}

/// Whether a purge can be understood.
///
/// # Errors
/// When it cannot.
pub fn check_purge(shared: &Shared, command: &PurgeCommand) -> Result<(), PurgeError> {
    matchers(&shared.active().snapshot, &command.target).map(|_| ())
}

/// Counts the stored responses that matchers concern, and that are not purged.
pub(crate) async fn count_here(shared: &Arc<Shared>, matchers: Vec<Matcher>) -> Matched {
    let shared = Arc::clone(shared);
    let counting = tokio::task::spawn_blocking(move || {
        let concerned = |entry: &Entry| {
            let tags = Some(&*entry.tags);
            let is_meant =
                |matcher: &Matcher| matcher.concerns(entry.uri(), entry.uri_digest, tags);
            matchers.iter().any(is_meant) && shared.log.verdict(entry) != Verdict::Purged
        };
        let (responses, partial) = shared.memory.count(COUNTED_KEYS_MAX, concerned);
        Matched { responses, partial }
    });
    // It fails only if the process is ending.
    counting.await.unwrap_or_default()
}

fn matchers(snapshot: &Snapshot, target: &PurgeTarget) -> Result<Vec<Matcher>, PurgeError> {
    match target {
        PurgeTarget::Url(text) => {
            let url = Url::parse(text).ok().filter(Url::has_scheme);
            Ok(vec![url_matcher(snapshot, &url.ok_or_else(|| PurgeError::Url(text.clone()))?)])
        }
        PurgeTarget::Prefix(text) if text.len() > TEXT_BYTES_MAX => Err(PurgeError::PrefixTooLong),
        PurgeTarget::Prefix(text) => {
            prefix_matchers(snapshot, text).ok_or_else(|| PurgeError::Prefix(text.clone()))
        }
        PurgeTarget::Tag(text) => match text.trim() {
            "" => Err(PurgeError::Tag),
            tag if tag.len() > TAG_BYTES_MAX => Err(PurgeError::TagTooLong),
            tag => Ok(vec![Matcher::Tag(tag.to_owned())]),
        },
        PurgeTarget::All => Ok(vec![Matcher::All]),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use outrigger_coherence::PurgeLog;
    use outrigger_telemetry::Metrics;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::clock::Clock;
    use crate::mesh::MeshSettings;
    use crate::settings::{CoalesceSettings, ConnectionLimits, Settings};
    use crate::state::Parts;
    use crate::upstream::{
        Balance, EjectionSettings, HostHeader, PoolSettings, Protocol, Timeouts, UpstreamSettings,
    };

    async fn process() -> Arc<Shared> {
        let upstream = UpstreamSettings {
            endpoints: Vec::new(),
            tls: None,
            protocol: Protocol::Http1,
            balance: Balance::default(),
            host_header: HostHeader::default(),
            authority: String::new(),
            health_check: None,
            ejection: EjectionSettings::default(),
            timeouts: Timeouts::default(),
            pool: PoolSettings::default(),
            header_count_max: 100,
            header_bytes_max: 1 << 16,
        };
        let settings = Settings {
            limits: ConnectionLimits::default(),
            upstream,
            mesh: MeshSettings::default(),
            memory_bytes_max: 1 << 20,
            object_bytes_max: 1 << 10,
            variants_max: 4,
            coalesce: CoalesceSettings::default(),
            workers: 1,
            show_key: false,
        };
        let parts = Parts {
            settings,
            snapshot: Arc::new(Snapshot::built_in()),
            tiers: Vec::new(),
            log: PurgeLog::local(),
            metrics: Metrics::new(&mut Registry::default()),
            tracing: None,
            access_log: None,
            clock: Clock::system(),
            instance: "test".to_owned(),
        };
        Shared::start(parts).await.unwrap()
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_lose_its_purge() {
        let shared = process().await;
        let command =
            PurgeCommand { target: PurgeTarget::All, mode: PurgeMode::Hard, reason: None };
        let mut purging = Box::pin(purge(&shared, command));
        let begun = std::future::poll_fn(|cx| Poll::Ready(purging.as_mut().poll(cx).is_pending()));
        assert!(begun.await, "it waits for the count");
        drop(purging);
        let appended = async {
            while shared.log().recent().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), appended).await.unwrap();
    }

    #[test]
    fn a_tag_is_read_as_responses_carry_it() {
        let snapshot = Snapshot::from_yaml("p", "{}").unwrap();
        let read = |text: &str| matchers(&snapshot, &PurgeTarget::Tag(text.to_owned()));
        for text in ["catalog", " catalog", "catalog\n"] {
            assert_eq!(read(text), Ok(vec![Matcher::Tag("catalog".to_owned())]), "{text:?}");
        }
        assert_eq!(read(" "), Err(PurgeError::Tag));
        assert!(read(&"x".repeat(TAG_BYTES_MAX)).is_ok());
        assert_eq!(read(&"x".repeat(TAG_BYTES_MAX + 1)), Err(PurgeError::TagTooLong));
        let prefix = PurgeTarget::Prefix(format!("http://h/{}", "x".repeat(TEXT_BYTES_MAX)));
        assert_eq!(matchers(&snapshot, &prefix), Err(PurgeError::PrefixTooLong));
    }
}
