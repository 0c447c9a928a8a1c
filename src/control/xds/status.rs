//! What operators can see of the connection to istiod.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use strum::EnumCount;

/// A refusal that was sent to istiod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// When it was sent.
    pub at: SystemTime,
    /// Version of the response that was refused.
    pub version: String,
    /// Why the response was refused, as istiod was told.
    pub reason: String,
}

/// A connection that failed or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it failed or ended.
    pub at: SystemTime,
    /// Why it did.
    pub reason: String,
}

/// The connection to istiod at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdsView {
    /// Whether there is a stream on which istiod has answered.
    pub connected: bool,
    /// Since when there is such a stream, or none.
    pub since: Option<SystemTime>,
    /// The name that the control plane gives itself.
    pub control_plane: Option<String>,
    /// Version of the last response that was accepted.
    pub version: Option<String>,
    /// When the last response came.
    pub last_response: Option<SystemTime>,
    /// The last refusal, until a response is accepted.
    pub last_nack: Option<Nack>,
    /// Why the last connection failed or ended.
    pub last_failure: Option<Failure>,
    /// When the policy in force was saved, if it was read from disk and istiod has not answered yet.
    pub kept_since: Option<SystemTime>,
}

/// The result of a response.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumCount, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum XdsResult {
    /// It brought a new policy, which is in force.
    Accepted,
    /// It brought what is in force already.
    Unchanged,
    /// It was refused, and what was in force stays.
    Rejected,
}

impl XdsResult {
    /// The stable name used in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The state of the connection to istiod, written by the client and read by the admin port.
#[derive(Debug, Default)]
pub struct XdsStatus {
    view: Mutex<XdsView>,
    responses: [AtomicU64; XdsResult::COUNT],
    connects: AtomicU64,
    failures: AtomicU64,
}

impl XdsStatus {
    /// The state at this moment, as a copy.
    pub fn view(&self) -> XdsView {
        self.view.lock().clone()
    }

    /// How many responses had this result.
    pub fn responses(&self, result: XdsResult) -> u64 {
        self.responses[result as usize].load(Ordering::Relaxed)
    }

    /// How many streams istiod has answered on.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// How many connections failed before istiod had answered.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn kept(&self, saved: SystemTime, version: String) {
        let mut view = self.view.lock();
        view.kept_since = Some(saved);
        view.version = Some(version);
    }

    /// Notes that istiod has answered; `true` if it is the first answer on this stream.
    pub(crate) fn answered(&self, control_plane: Option<String>) -> bool {
        let mut view = self.view.lock();
        let now = SystemTime::now();
        view.last_response = Some(now);
        view.control_plane = control_plane.or(view.control_plane.take());
        let news = !std::mem::replace(&mut view.connected, true);
        if news {
            view.since = Some(now);
            self.connects.fetch_add(1, Ordering::Relaxed);
        }
        news
    }

    pub(crate) fn accepted(&self, version: &str, result: XdsResult) {
        let mut view = self.view.lock();
        view.version = Some(version.to_owned());
        view.last_nack = None;
        view.kept_since = None;
        self.responses[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, version: &str, reason: &str) {
        let (version, reason) = (version.to_owned(), reason.to_owned());
        self.view.lock().last_nack = Some(Nack { at: SystemTime::now(), version, reason });
        self.responses[XdsResult::Rejected as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the connection ended or could not be made; `true` if there had been one.
    pub(crate) fn lost(&self, reason: &str) -> bool {
        let mut view = self.view.lock();
        let now = SystemTime::now();
        let was = std::mem::replace(&mut view.connected, false);
        if was || view.since.is_none() {
            view.since = Some(now);
        }
        if !was {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        view.last_failure = Some(Failure { at: now, reason: reason.to_owned() });
        was
    }
}
