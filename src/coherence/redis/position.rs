//! Where the log stands now: the position that a session token carries.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::log::{DRIFT_DIVISOR, RedisLog};
use crate::Seq;

impl RedisLog {
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
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
            return now.saturating_add(MARGIN_MICROS);
        }
        let now = self.state.now();
        // The longer the server has been silent, the further its clock may have drifted.
        let silent = now.saturating_sub(self.heard_at.load(Ordering::Acquire));
        let drift = silent * 1000 / u64::from(DRIFT_DIVISOR);
        offset
            .saturating_add(now * 1000)
            .max(self.heard_last.load(Ordering::Acquire))
            .max(self.state.mirror.applied())
            .saturating_add(MARGIN_MICROS + drift)
    }
}
