//! Whether one target can be used: the breaker, the probes that close it, and one log line for each
//! change.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::{Notify, watch};

use crate::breaker::Breaker;
use crate::link::{Link, LinkState};

/// After this many probes without an answer connections are opened anew.
const PROBES_BEFORE_REOPEN: u32 = 3;

/// A row of failures opens the breaker when it has lasted for so many deadlines.
const ROW_DEADLINES: u32 = 2;

/// How long a better reason for a lost connection is waited for.
const REASON_AFTER: Duration = Duration::from_millis(300);

/// Who stays up for so long is well again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// How the breaker of a tier behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// A probe must be answered within this.
    pub deadline: Duration,
    /// Failures in a row that open the breaker, if the row lasts for two deadlines.
    pub failures_max: u32,
    /// First pause between probes.
    pub open: Duration,
    /// Longest pause.
    pub open_max: Duration,
}

/// The state of one target, shared by all who use it.
#[derive(Debug)]
pub struct Health {
    breaker: Breaker,
    clock: std::time::Instant,
    settings: HealthSettings,
    opened: Notify,
    /// Raised when all links should be opened anew.
    generation: watch::Sender<u64>,
    reason: std::sync::Mutex<String>,
}

impl Health {
    /// A state that becomes usable with the first probe.
    pub fn new(settings: HealthSettings) -> Arc<Self> {
        Arc::new(Health {
            breaker: Breaker::new(settings.failures_max, settings.deadline * ROW_DEADLINES),
            clock: std::time::Instant::now(),
            settings,
            opened: Notify::new(),
            generation: watch::Sender::new(0),
            reason: std::sync::Mutex::new("not connected yet".to_owned()),
        })
    }

    /// Whether the target should be left alone.
    pub fn is_down(&self) -> bool {
        self.breaker.is_open()
    }

    /// Why it is down, or was last.
    pub fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Notes an answer.
    pub fn succeeded(&self) {
        self.breaker.succeeded();
    }

    /// Notes that an operation did not end in time.
    pub fn timed_out(&self) {
        if self.breaker.failed(self.now_micros()) {
            let millis = self.settings.deadline.as_millis();
            self.tell_down(&format!("no answers within {millis} ms"));
        }
    }

    /// Notes a failed operation. What the server says about one command is no failure of it.
    pub fn failed(&self, error: &RedisError) {
        if error.is_io_error() || error.is_unrecoverable_error() || error.is_cluster_error() {
            if self.breaker.failed(self.now_micros()) {
                self.tell_down(&error.to_string());
            }
        } else {
            self.succeeded();
        }
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn tell_down(&self, reason: &str) {
        *self.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = reason.to_owned();
        self.opened.notify_one();
    }

    /// Keeps one link in step with the state: it is opened anew when probes stay unanswered.
    pub fn follow(self: &Arc<Self>, link: &Link) {
        let mut generation = self.generation.subscribe();
        let link = link.clone();
        tokio::spawn(async move {
            while generation.changed().await.is_ok() {
                link.reopen();
            }
        });
    }

    /// Watches a link and probes through it while the breaker is open. Runs for ever.
    pub async fn watch(self: Arc<Self>, link: Link) {
        let mut state = link.state();
        let mut first = true;
        let mut pause = self.settings.open;
        loop {
            self.until_usable(&link, &mut state, &mut first, &mut pause).await;
            tracing::info!(server = link.target().name(), "redis tier is up");
            first = false;
            let since = tokio::time::Instant::now();
            let reason = self.until_down(&mut state).await;
            let reason = self.better_reason(reason, &mut state).await;
            tracing::warn!(server = link.target().name(), reason, "redis tier is down");
            if since.elapsed() >= GOOD_AFTER {
                pause = self.settings.open;
            } else {
                // It answers probes and nothing else: those who ask are spared for longer each time.
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Returns when a probe was answered; the breaker is then closed.
    async fn until_usable(
        &self,
        link: &Link,
        state: &mut watch::Receiver<LinkState>,
        first: &mut bool,
        pause: &mut Duration,
    ) {
        let mut unanswered = 0;
        loop {
            if let Some(conn) = link.conn() {
                if self.probe(conn).await {
                    *pause = (*pause * 2).min(self.settings.open_max);
                    self.breaker.close();
                    return;
                }
                unanswered += 1;
                if unanswered >= PROBES_BEFORE_REOPEN {
                    unanswered = 0;
                    self.generation.send_modify(|generation| *generation += 1);
                }
            }
            let down = match &*state.borrow_and_update() {
                LinkState::Down(error) => Some(error.to_string()),
                _ => None,
            };
            if let (Some(reason), true) = (down, *first) {
                *first = false;
                self.tell_down(&reason);
                tracing::warn!(server = link.target().name(), reason, "redis tier is down");
            }
            // A new connection is worth a probe at once; the pause has passed otherwise.
            let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            let _ = tokio::time::timeout(jittered, state.changed()).await;
            *pause = (*pause * 2).min(self.settings.open_max);
        }
    }

    async fn probe(&self, mut conn: crate::connect::Conn) -> bool {
        let cmd = redis::cmd("PING");
        let answered = tokio::time::timeout(
            self.settings.deadline.max(Duration::from_millis(5)),
            cmd.query_async::<redis::Value>(&mut conn),
        )
        .await;
        match answered {
            Ok(Ok(_)) => true,
            // An ACL may forbid the command; the server has answered all the same.
            Ok(Err(error)) => error.code() == Some("NOPERM"),
            Err(_) => false,
        }
    }

    /// A lost connection says little; why it cannot be opened again says more.
    async fn better_reason(
        &self,
        reason: String,
        state: &mut watch::Receiver<LinkState>,
    ) -> String {
        let is_down = |state: &LinkState| matches!(state, LinkState::Down(_));
        if !is_down(&state.borrow()) {
            return reason;
        }
        // Looking for it delays nothing but the line in the log.
        let _ = tokio::time::timeout(REASON_AFTER, state.changed()).await;
        match &*state.borrow_and_update() {
            LinkState::Down(error) => {
                let better = error.to_string();
                self.tell_down(&better);
                better
            }
            _ => reason,
        }
    }

    /// Returns with the reason when the breaker has opened or the link is lost.
    async fn until_down(&self, state: &mut watch::Receiver<LinkState>) -> String {
        loop {
            if self.breaker.is_open() {
                return self.reason();
            }
            tokio::select! {
                () = self.opened.notified() => {}
                changed = state.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    if let LinkState::Down(error) = &*state.borrow_and_update() {
                        let reason = error.to_string();
                        self.breaker.trip();
                        self.tell_down(&reason);
                        return reason;
                    }
                }
            }
        }
    }
}
