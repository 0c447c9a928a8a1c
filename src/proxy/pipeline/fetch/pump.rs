//! Moving the body of a fetch from the upstream to those who read it, and keeping what may be stored.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use outrigger_semantics::NotStored;
use tokio::time::{Instant, timeout};

use crate::body::BodyError;
use crate::coalesce::flight::Producer;
use crate::coalesce::readers::{Progress, Room};
use crate::coalesce::table::RegisteredFlight;
use crate::passed::Whose;
use crate::pipeline::request::RequestView;
use crate::upstream::UpstreamBody;

/// How often it is looked at who holds other readers back.
const LOOK: Duration = Duration::from_millis(50);

/// Chunks of a body that may be stored.
#[derive(Default)]
pub(super) struct Collected {
    chunks: Vec<Bytes>,
    /// Bytes that have come.
    pub(super) total: u64,
    /// Bytes of the largest body to store.
    pub(super) bytes_max: u64,
    /// Whether more than that have come, and nothing is kept any more.
    pub(super) overflowed: bool,
}

impl Collected {
    /// Nothing yet of a body that may be stored up to so many bytes.
    pub(super) fn up_to(bytes_max: u64) -> Self {
        Collected { bytes_max, ..Collected::default() }
    }

    /// One piece of memory of exactly the right size.
    pub(super) fn join(self) -> Bytes {
        let mut whole = Vec::with_capacity(usize::try_from(self.total).unwrap_or(0));
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        Bytes::from(whole)
    }
}

/// How far a body was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// To its end.
    Whole,
    /// Its connection broke off.
    Broke,
    /// The upstream paused for too long, or nobody is there for the rest.
    GivenUp,
}

/// Moves the body from the upstream to the readers; `true` if it came to its end. Where it breaks off,
/// `rest` is asked once for what comes after the bytes that are there.
pub(super) async fn pump_all(
    mut body: UpstreamBody,
    collected: &mut Collected,
    flight: &mut RegisteredFlight,
    request: RequestView<'_>,
    rest: impl AsyncFnOnce(u64) -> Option<UpstreamBody>,
) -> bool {
    let mut pumped = pump(&mut body, collected, flight, request).await;
    if pumped == Pumped::Broke
        && let Some(mut body) = rest(collected.total).await
    {
        pumped = pump(&mut body, collected, flight, request).await;
    }
    pumped == Pumped::Whole
}

/// Moves a body as far as it comes.
async fn pump(
    body: &mut UpstreamBody,
    collected: &mut Collected,
    flight: &mut RegisteredFlight,
    request: RequestView<'_>,
) -> Pumped {
    let mut began = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(BodyError::Upstream(_)) => return Pumped::Broke,
            Err(_) => return Pumped::GivenUp,
        };
        let chunk = match frame.into_data() {
            Ok(chunk) => chunk,
            Err(frame) => {
                // They reach those who read along, and are not stored (RFC 9110 §6.5.1).
                if let Ok(trailers) = frame.into_trailers() {
                    flight.trailers(trailers);
                }
                continue;
            }
        };
        if chunk.is_empty() {
            continue;
        }
        let began = *began.get_or_insert_with(Instant::now);
        collected.total += chunk.len() as u64;
        if collected.total > collected.bytes_max && !collected.overflowed {
            collected.overflowed = true;
            let (digest, now) = (request.key.digest(), request.shared.clock.now());
            request.shared.passed.note(digest, NotStored::TooLarge, Whose::Everybody, now);
            collected.chunks = Vec::new();
            flight.unlist();
            flight.stop_keeping();
        }
        if collected.overflowed {
            let cut = room(flight, began).await;
            request.shared.metrics.coalesce_cut.inc_by(cut as u64);
            if flight.is_unread() {
                // Nothing will be stored, and nobody is there for the rest.
                return Pumped::GivenUp;
            }
        } else {
            collected.chunks.push(chunk.clone());
        }
        flight.push(chunk);
    }
    Pumped::Whole
}

/// Waits until the readers have room for more. Who keeps others waiting for too long is cut loose;
/// returns how many were. There is a chunk for those who wait, so that nobody is blamed for a pause
/// of the upstream.
async fn room(flight: &Producer, began: Instant) -> usize {
    let (mut cut, mut had_turn) = (0, false);
    while let Room::Held { in_turn } = flight.room().await {
        let since = Instant::now();
        let freed = timeout(LOOK, flight.free()).await.is_ok();
        // Who was only just woken may wait for its thread, which is no fault of its own.
        if had_turn || !in_turn {
            let [began, since, now] = [began, since, Instant::now()].map(Instant::into_std);
            cut += flight.count_hold(Progress { began, since, now });
        }
        had_turn = !freed;
    }
    cut
}
