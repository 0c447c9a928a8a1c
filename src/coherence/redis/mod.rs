//! The log of a namespace: a Redis Stream that all pods append to and follow.
//!
//! Positions are made by the server: the microseconds of its clock, or one more than the last
//! position if that is later. So a position is never used twice, also when the log is lost and
//! begins anew. A pod that cannot reach the log keeps what it had to say in an outbox, and holds
//! what that concerns until it has been said.

mod active;
mod commands;
mod heartbeat;
mod outbox;
mod reader;
mod scripts;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_redis::{Link, Target};
use tokio::sync::Notify;

use crate::Seq;
use crate::event::{Content, Event, PurgeRequest};
use crate::holds::Ends;
use crate::lease::Lease;
use crate::log::{Acks, LogError, Purged, State};
use active::ActiveHolds;
use outbox::Outbox;

/// How the shared log works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLogSettings {
    /// The namespace whose log it is.
    pub namespace: String,
    /// The name of this pod, unique in the namespace.
    pub pod: String,
    /// Events kept in the log.
    pub events_max: u64,
    /// Length of a lease.
    pub lease: Duration,
    /// How long an append may take.
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
    fn pods_name(&self) -> String {
        format!("or:{{{}}}:pods", self.namespace)
    }
}

/// Time for a pod's clock to run differently from the server's: a tenth of the lease.
const DRIFT_DIVISOR: u32 = 10;

/// The log of a namespace, as one pod uses it.
pub struct RedisLog {
    settings: RedisLogSettings,
    state: Arc<State>,
    /// For short commands.
    commands: Link,
    /// For the one that waits for events.
    reading: Link,
    lease: Mutex<Lease>,
    /// A copy of the lease's end and need, for the data path.
    lease_until: AtomicU64,
    lease_need: AtomicU64,
    /// Up to this position of the server's clock nothing is missing.
    covered: AtomicU64,
    /// The server's clock, microseconds, less this process's, as last heard.
    server_offset: AtomicU64,
    connected: AtomicBool,
    /// Whether the last command was answered in time.
    responsive: AtomicBool,
    caught_up: AtomicBool,
    /// When, in this process's clock, a heartbeat was last answered, and where the log stood.
    heard_at: AtomicU64,
    heard_last: AtomicU64,
    /// Set when this pod has left.
    left: AtomicBool,
    /// Something was applied that the others want to know.
    applied: Notify,
    outbox: Outbox,
    active: ActiveHolds,
}

impl std::fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A hold that was placed. If it is dropped without being completed (the client went away in the
/// middle of its write) a purge ends it all the same.
#[derive(Debug)]
pub struct HoldGuard {
    log: Arc<RedisLog>,
    request: PurgeRequest,
    id: u64,
    /// The events that remain to be ended, once that has begun.
    left: Vec<Seq>,
}

impl RedisLog {
    /// Starts following the log on the current runtime.
    pub fn start(settings: RedisLogSettings, target: &Arc<Target>) -> Arc<Self> {
        let log = Arc::new(RedisLog {
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
        });
        tokio::spawn(reader::run(Arc::clone(&log)));
        tokio::spawn(heartbeat::run(Arc::clone(&log)));
        tokio::spawn(outbox::run(Arc::clone(&log)));
        log
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

    /// Purges that wait to be appended.
    pub fn queued(&self) -> usize {
        self.outbox.len()
    }

    /// Appends a purge; see [`crate::PurgeLog::purge`].
    pub(crate) async fn purge(&self, request: PurgeRequest, ends: Option<Seq>) -> Purged {
        let content = Content::purge(request, ends, &self.settings.pod);
        match self.append(&content).await {
            Ok(seq) => {
                self.in_effect(seq, &content).await;
                Purged::Applied(Event { seq, at_unix_millis: seq / 1000, content })
            }
            Err(error) => {
                tracing::debug!(%error, "a purge is kept until the log can be reached");
                self.outbox.push(&self.state.mirror, content);
                Purged::Queued
            }
        }
    }

    /// Makes sure that an event of the log is in effect here: it mostly comes back at once.
    async fn in_effect(&self, seq: Seq, content: &Content) {
        if !self.state.until_applied(seq, self.settings.append_timeout).await {
            let ends = Ends::Applied(seq);
            self.state.mirror.hold(&content.matcher, ends);
        }
    }

    /// Keeps a URL from being served or stored by any pod until the guard is completed. With
    /// `everywhere` this returns only when every live pod has applied the hold, or has lost its
    /// lease.
    ///
    /// # Errors
    /// When the log cannot be reached; the hold may then exist for a while all the same.
    pub async fn hold(
        self: &Arc<Self>,
        request: PurgeRequest,
        everywhere: bool,
    ) -> Result<HoldGuard, LogError> {
        let content = Content::hold(request.clone(), &self.settings.pod);
        let seq = self.append(&content).await?;
        let id = self.active.begin(content.clone(), seq, self.state.now());
        let guard = HoldGuard { log: Arc::clone(self), request, id, left: Vec::new() };
        self.in_effect(seq, &content).await;
        if everywhere {
            self.applied_everywhere(seq).await?;
        }
        Ok(guard)
    }

    /// Waits until no pod can serve what an event forbids.
    async fn applied_everywhere(&self, seq: Seq) -> Result<(), LogError> {
        let began = self.state.now();
        // Nobody's lease can outlive this, whatever the log remembers about pods.
        let limit = self.longest_lease_ms().saturating_mul(2);
        loop {
            let answer = self.ask_acks(seq).await?;
            if !answer.is_there {
                // A fail-over has lost it: others may never hear of it.
                return Err(LogError::Unreachable("the log has lost the hold".to_owned()));
            }
            if answer.acks.missing.is_empty() && self.is_settled(&answer) {
                return Ok(());
            }
            if self.state.now() > began.saturating_add(limit) {
                return Err(LogError::Unreachable("pods do not acknowledge".to_owned()));
            }
            let pause = if answer.acks.missing.is_empty() { 20 } else { 2 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// A lease as the most different clock counts it, milliseconds.
    fn longest_lease_ms(&self) -> u64 {
        let lease = self.settings.lease + self.settings.lease / DRIFT_DIVISOR;
        u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the list of pods is complete: a server that has just become ours, or a list that has
    /// just begun, may not know leases that were granted before.
    fn is_settled(&self, answer: &commands::AcksAnswer) -> bool {
        let now = self.state.now();
        let contact = self.commands.since().map_or(now, |since| self.state.at(since));
        let since = contact.max(now.saturating_sub(answer.known_ms));
        now >= since.saturating_add(self.longest_lease_ms())
    }

    /// Waits for acknowledgements; see [`crate::PurgeLog::acknowledged`].
    pub(crate) async fn acknowledged(&self, seq: Seq, limit: Duration) -> Acks {
        let mut last = Acks::default();
        let mut pause = Duration::from_millis(1);
        let polling = async {
            loop {
                if let Ok(answer) = self.ask_acks(seq).await {
                    // Pods that are not on a new list yet are waited for.
                    let complete = self.is_settled(&answer);
                    last = Acks { complete, ..answer.acks };
                    if last.missing.is_empty() && last.live > 0 && complete {
                        return;
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(16));
            }
        };
        // What is known by then is the answer.
        let _ = tokio::time::timeout(limit, polling).await;
        last
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

    /// Whether there may be holds that this pod has not heard of: some may have been lost with the
    /// log, or trimmed from it. Writers repeat theirs within a lease.
    pub(crate) fn may_miss_holds(&self) -> bool {
        let unheard = self.state.unheard.load(Ordering::Acquire);
        let safe_at = unheard.saturating_add(self.longest_lease_ms() * 1000);
        unheard > 0 && self.state.mirror.applied() < safe_at && !self.covers(safe_at)
    }

    /// The position of the log now: what somebody who reads the upstream now may have seen. When
    /// the log cannot be reached, a position that no event can have yet.
    pub async fn seen(&self) -> Seq {
        let asked = tokio::time::timeout(self.settings.question_timeout, self.last()).await;
        match asked {
            // A log that stands behind this pod has lost something, and says too little.
            Ok(Ok(last)) if last >= self.state.mirror.applied() => last,
            _ => self.server_now_micros(),
        }
    }

    /// The server's clock as far as it is known, a little ahead.
    fn server_now_micros(&self) -> Seq {
        const MARGIN_MICROS: u64 = 20_000;
        let offset = self.server_offset.load(Ordering::Acquire);
        if offset == 0 {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
            return now.saturating_add(MARGIN_MICROS);
        }
        let now = self.state.now();
        // The longer ago it was heard of, the further its clock may have gone elsewhere.
        let silent = now.saturating_sub(self.heard_at.load(Ordering::Acquire));
        let drift = silent * 1000 / u64::from(DRIFT_DIVISOR);
        offset
            .saturating_add(now * 1000)
            .max(self.heard_last.load(Ordering::Acquire))
            .max(self.state.mirror.applied())
            .saturating_add(MARGIN_MICROS + drift)
    }

    /// The live pods with what they have applied.
    pub async fn pods(&self) -> Result<Vec<(String, Seq)>, LogError> {
        self.list_pods().await
    }

    /// Appends what waits, as far as that can be done within `limit`, and takes this pod off the
    /// list. It must have stopped serving.
    pub async fn leave(&self, limit: Duration) {
        let emptied = async {
            while self.outbox.len() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(limit, emptied).await.is_err() {
            tracing::warn!(purges = self.outbox.len(), "purges could not be told to the others");
        }
        self.left.store(true, Ordering::Release);
        // An entry that stays is ignored once its lease has run out.
        let _ = tokio::time::timeout(self.settings.append_timeout, self.forget_me()).await;
    }
}

impl HoldGuard {
    /// The write is done, whatever became of it: purges, and ends the hold.
    pub async fn complete(mut self) -> Purged {
        self.left = self.log.active.end(self.id);
        let mut last = Purged::Queued;
        // What is left, whoever stops waiting for this leaves to the drop.
        while let Some(seq) = self.left.first().copied() {
            last = self.log.purge(self.request.clone(), Some(seq)).await;
            self.left.retain(|have| *have != seq);
        }
        last
    }

    /// The kind of what is held, for metrics.
    pub fn kind(&self) -> &'static str {
        self.request.matcher.kind()
    }

    /// Ends the hold later, since what it announced may still come to pass.
    pub fn linger(self, time: Duration) {
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            self.complete().await;
        });
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.left.append(&mut self.log.active.end(self.id));
        for seq in self.left.drain(..) {
            let request = self.request.clone();
            let content = Content::purge(request, Some(seq), &self.log.settings.pod);
            self.log.outbox.push(&self.log.state.mirror, content);
        }
    }
}
