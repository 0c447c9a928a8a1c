//! The log as one pod uses it: what the tasks have learned last, and what follows from it.
//!
//! Questions that are asked for each request are answered here from memory. Nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use outrigger_redis::{Link, Target};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::active::ActiveHolds;
use super::outbox::Outbox;
use crate::Seq;
use crate::lease::Lease;
use crate::state::State;

/// How the log in Redis works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLogSettings {
    /// The namespace whose log it is.
    pub namespace: String,
    /// The name of this pod, unique in the namespace.
    pub pod: String,
    /// Number of events kept in the log.
    pub events_max: u64,
    /// Length of a lease.
    pub lease: Duration,
    /// Longest time for an append or another short command.
    pub append_timeout: Duration,
    /// Whether a log under another server than before is trusted to hold all that it held.
    pub trust_fail_over: bool,
    /// How long a response on a causal route may be held up by the question where the log stands.
    pub question_timeout: Duration,
}

impl RedisLogSettings {
    /// The stream. The braces are a hash tag: in a cluster all that scripts touch is on one node.
    pub fn log_name(&self) -> String {
        format!("or:{{{}}}:log", self.namespace)
    }

    /// The hash of live pods.
    pub(super) fn pods_name(&self) -> String {
        format!("or:{{{}}}:pods", self.namespace)
    }
}

/// Time for a pod's clock to run differently from the server's: a tenth of the lease.
pub(super) const DRIFT_DIVISOR: u32 = 10;

/// The log of a namespace, as one pod uses it.
pub struct RedisLog {
    pub(super) settings: RedisLogSettings,
    pub(super) state: Arc<State>,
    /// The connection for short commands.
    pub(super) commands: Link,
    /// The connection that waits for events.
    pub(super) reading: Link,
    pub(super) lease: Mutex<Lease>,
    /// A copy of the lease's end and need, for the data path.
    pub(super) lease_until: AtomicU64,
    pub(super) lease_need: AtomicU64,
    /// Up to this position of the server's clock nothing is missing.
    pub(super) covered: AtomicU64,
    /// The server's clock, microseconds, less this process's, as last heard.
    pub(super) server_offset: AtomicU64,
    pub(super) connected: AtomicBool,
    /// Whether the last command was answered in time.
    pub(super) responsive: AtomicBool,
    pub(super) caught_up: AtomicBool,
    /// When, in this process's clock, a heartbeat was last answered, and where the log stood.
    pub(super) heard_at: AtomicU64,
    pub(super) heard_last: AtomicU64,
    /// Set when this pod has left.
    pub(super) left: AtomicBool,
    /// Something was applied that other pods wait for.
    pub(super) applied: Notify,
    pub(super) outbox: Outbox,
    pub(super) active: ActiveHolds,
}

impl std::fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RedisLog {
    /// A log that nobody follows yet, with its two connections.
    pub(super) fn new(settings: RedisLogSettings, target: &Arc<Target>) -> Self {
        RedisLog {
            settings,
            state: Arc::default(),
            commands: Link::start(Arc::clone(target)),
            reading: Link::start(Arc::clone(target)),
            lease: Mutex::default(),
            lease_until: AtomicU64::new(0),
            lease_need: AtomicU64::new(0),
            covered: AtomicU64::new(0),
            server_offset: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            responsive: AtomicBool::new(true),
            caught_up: AtomicBool::new(false),
            heard_at: AtomicU64::new(0),
            heard_last: AtomicU64::new(0),
            left: AtomicBool::new(false),
            applied: Notify::new(),
            outbox: Outbox::default(),
            active: ActiveHolds::default(),
        }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The name of this pod.
    pub fn pod(&self) -> &str {
        &self.settings.pod
    }

    /// Whether the log is being followed right now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether the log is being followed and its server answers.
    pub(crate) fn is_heard(&self) -> bool {
        self.is_connected() && self.responsive.load(Ordering::Acquire)
    }

    /// Whether the log has ever been read to its end.
    pub fn has_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Number of purges that wait to be appended.
    pub fn queued(&self) -> usize {
        self.outbox.len()
    }

    /// Whether this pod knows all that was appended up to a position, by the server's clock.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        self.covered.load(Ordering::Acquire) >= seq
    }

    /// Whether this pod holds a lease.
    pub fn has_lease(&self) -> bool {
        // Need is written before the end and read after it: a new end never meets an old need.
        let until = self.lease_until.load(Ordering::Acquire);
        let need = self.lease_need.load(Ordering::Acquire);
        self.state.now() < until && self.state.mirror.applied() >= need
    }

    /// A lease as the most different clock counts it, milliseconds.
    pub(super) fn longest_lease_ms(&self) -> u64 {
        let lease = self.settings.lease + self.settings.lease / DRIFT_DIVISOR;
        u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there may be holds that this pod has not heard of: some may have been lost with the
    /// log, or trimmed from it. Writers repeat theirs within a lease.
    pub(crate) fn may_miss_holds(&self) -> bool {
        let unheard = self.state.unheard.load(Ordering::Acquire);
        let safe_at = unheard.saturating_add(self.longest_lease_ms() * 1000);
        unheard > 0 && self.state.mirror.applied() < safe_at && !self.covers(safe_at)
    }
}
