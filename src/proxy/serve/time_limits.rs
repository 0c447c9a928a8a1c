//! Time limits of client connections, without a timer for each: idle, reading a request head, and
//! a client that does not take its response.
//!
//! A connection notes its state in atomics. One sweep per worker looks at all of them every
//! [`SWEEP`] and ends those that exceed a limit. A request costs a few plain stores.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use outrigger_telemetry::Metrics;
use parking_lot::Mutex;
use strum::IntoStaticStr;
use tokio::sync::Notify;

use crate::settings::ConnectionLimits;

/// Interval of the sweeps, and so the precision of the limits.
pub(crate) const SWEEP: Duration = Duration::from_millis(200);

/// Milliseconds since the worker began, as of the last sweep.
#[derive(Debug)]
pub(crate) struct Ticker {
    began: Instant,
    millis: AtomicU64,
}

impl Ticker {
    pub(crate) fn new() -> Self {
        Ticker { began: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    fn advance(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }
}

/// In place of a time: the state does not hold at present.
const NEVER: u64 = u64::MAX;

/// A time limit that a connection has exceeded. The names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
enum TimeLimit {
    /// The client does not take its response.
    WriteStall,
    /// The client does not complete a request head.
    HeaderRead,
    /// There is no request.
    Idle,
}

/// State of a connection. Times are milliseconds of its [`Ticker`].
#[derive(Debug)]
pub(crate) struct Activity {
    ticker: Arc<Ticker>,
    /// Requests that run.
    requests: AtomicU32,
    /// Requests that have begun.
    begun: AtomicU32,
    /// Whether all that was answered has been written.
    flushed: AtomicBool,
    retired: AtomicBool,
    idle_since: AtomicU64,
    /// First byte of an incomplete request head.
    head_since: AtomicU64,
    /// First write that the client did not take.
    stalled_since: AtomicU64,
    /// Notified when a limit is exceeded.
    end: Notify,
}

impl Activity {
    pub(crate) fn new(ticker: &Arc<Ticker>) -> Self {
        Activity {
            requests: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            flushed: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            idle_since: AtomicU64::new(ticker.now()),
            head_since: AtomicU64::new(NEVER),
            stalled_since: AtomicU64::new(NEVER),
            end: Notify::new(),
            ticker: Arc::clone(ticker),
        }
    }

    /// Bytes were received: if no request runs, one begins with them.
    pub(crate) fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == NEVER
        {
            self.head_since.store(self.ticker.now(), Ordering::Relaxed);
        }
    }

    /// A request has begun: its head is complete.
    pub(crate) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.flushed.store(false, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
    }

    /// A request has ended: its response was sent, or given up.
    pub(crate) fn end(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(self.ticker.now(), Ordering::Relaxed);
        }
    }

    /// Bytes were written: the client has `taken` some, or none.
    pub(crate) fn written(&self, taken: bool) {
        if taken {
            if self.stalled_since.load(Ordering::Relaxed) != NEVER {
                self.stalled_since.store(NEVER, Ordering::Relaxed);
            }
            self.idle_since.store(self.ticker.now(), Ordering::Relaxed);
        } else if self.stalled_since.load(Ordering::Relaxed) == NEVER {
            self.stalled_since.store(self.ticker.now(), Ordering::Relaxed);
        }
    }

    /// The connection has ended or has become a tunnel: no limit applies any more.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether any request has begun on this connection.
    pub(crate) fn has_served(&self) -> bool {
        self.begun() > 0
    }

    /// How many requests have begun on this connection.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// All that hyper had to write has been.
    pub(crate) fn flushed(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.flushed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether every response so far has been written.
    pub(crate) fn has_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Whether no request runs, on a connection that is not a tunnel.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.retired.load(Ordering::Relaxed)
    }

    /// Waits until the sweep finds the connection over a limit.
    pub(crate) async fn over_limit(&self) {
        self.end.notified().await;
    }

    fn exceeded(&self, now: u64, limits: &ConnectionLimits) -> Option<TimeLimit> {
        let over = |since: &AtomicU64, max: u64| {
            let since = since.load(Ordering::Relaxed);
            since != NEVER && now.saturating_sub(since) > max
        };
        if over(&self.stalled_since, limits.write_stall_timeout_ms) {
            return Some(TimeLimit::WriteStall);
        }
        if self.requests.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if over(&self.head_since, limits.header_read_timeout_ms) {
            return Some(TimeLimit::HeaderRead);
        }
        (self.head_since.load(Ordering::Relaxed) == NEVER
            && over(&self.idle_since, limits.idle_timeout_ms))
        .then_some(TimeLimit::Idle)
    }
}

/// All connections of a worker.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Vec<Weak<Activity>>>);

impl Connections {
    pub(crate) fn add(&self, activity: &Arc<Activity>) {
        self.0.lock().push(Arc::downgrade(activity));
    }

    /// Ends connections that are over a limit and forgets those that have ended.
    pub(crate) fn sweep(&self, ticker: &Ticker, limits: &ConnectionLimits, metrics: &Metrics) {
        ticker.advance();
        let now = ticker.now();
        self.0.lock().retain(|weak| {
            let Some(activity) = weak.upgrade() else { return false };
            if activity.retired.load(Ordering::Relaxed) {
                return false;
            }
            match activity.exceeded(now, limits) {
                None => true,
                Some(limit) => {
                    metrics.count_closed(limit.into());
                    activity.end.notify_one();
                    false
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            header_bytes_max: 1,
            header_count_max: 1,
            header_read_timeout_ms: 100,
            idle_timeout_ms: 1000,
            body_idle_timeout_ms: 1000,
            write_stall_timeout_ms: 500,
            h2_streams_max: 1,
            h2_resets_max: 1,
            h2_header_list_bytes_max: 1,
        }
    }

    #[test]
    fn each_state_has_its_own_limit() {
        let ticker = Arc::new(Ticker::new());
        let activity = Activity::new(&ticker);
        assert_eq!(activity.exceeded(1000, &limits()), None);
        assert_eq!(activity.exceeded(1001, &limits()), Some(TimeLimit::Idle));
        activity.received();
        assert_eq!(activity.exceeded(101, &limits()), Some(TimeLimit::HeaderRead));
        activity.begin();
        assert_eq!(activity.exceeded(5000, &limits()), None);
        activity.written(false);
        assert_eq!(activity.exceeded(501, &limits()), Some(TimeLimit::WriteStall));
        activity.written(true);
        activity.end();
        assert!(activity.has_served());
    }

    #[test]
    fn names_of_limits_are_stable() {
        let all = [TimeLimit::WriteStall, TimeLimit::HeaderRead, TimeLimit::Idle];
        assert_eq!(all.map(<&str>::from), ["write-stall", "header-read", "idle"]);
    }
}
