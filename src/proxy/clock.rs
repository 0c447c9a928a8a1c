//! The clock of the data path; nothing else on the path asks the system for the time of day.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outrigger_semantics::UnixMillis;

/// Reads the time of day, and a time that only grows.
#[derive(Clone, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// The system's clock. [`Clock::monotonic`] counts from now on.
    pub fn system() -> Self {
        Clock { began: Instant::now() }
    }

    /// The time of day; the Unix epoch on a system whose clock stands before it.
    pub fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 8))
    }

    /// Time since the clock was made; unlike [`Clock::now`] it never jumps.
    pub fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}
