//! The clock of the data path. Tests set it; nothing else on the path asks the system for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outrigger_semantics::UnixMillis;

/// Tells the time.
#[derive(Clone, Debug)]
pub struct Clock {
    began: Instant,
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock { began: Instant::now(), fixed: None }
    }

    /// A clock that stands at `millis` until the returned handle is moved.
    pub fn manual(millis: i64) -> (Self, Arc<AtomicI64>) {
        let handle = Arc::new(AtomicI64::new(millis));
        (Clock { began: Instant::now(), fixed: Some(Arc::clone(&handle)) }, handle)
    }

    /// Now.
    pub fn now(&self) -> UnixMillis {
        match &self.fixed {
            Some(fixed) => UnixMillis(fixed.load(Ordering::Relaxed)),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 8))
            }
        }
    }

    /// Time since a fixed moment; unlike [`Clock::now`] it never jumps.
    pub fn monotonic(&self) -> Duration {
        match &self.fixed {
            Some(fixed) => Duration::from_millis(fixed.load(Ordering::Relaxed).unsigned_abs()),
            None => self.began.elapsed(),
        }
    }
}
