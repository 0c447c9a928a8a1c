//! The clock of the data path. Tests set it; nothing else on the path asks the system for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_semantics::UnixMillis;

/// Tells the time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock::default()
    }

    /// A clock that stands at `millis` until the returned handle is moved.
    pub fn manual(millis: i64) -> (Self, Arc<AtomicI64>) {
        let handle = Arc::new(AtomicI64::new(millis));
        (Clock { fixed: Some(Arc::clone(&handle)) }, handle)
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
}
