//! The commands of the log, each a single round trip.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_redis::client::{self, FromRedisValue, RedisError};

use super::{DRIFT_DIVISOR, RedisLog, scripts};
use crate::Seq;
use crate::event::Content;
use crate::log::{Acks, LogError};

/// The answer to a question for acknowledgements.
pub(super) struct AcksAnswer {
    /// For how long the list of pods has been kept, milliseconds.
    pub(super) known_ms: u64,
    pub(super) acks: Acks,
    /// Whether the log still has the position.
    pub(super) is_there: bool,
}

impl RedisLog {
    /// Runs a command on behalf of a request. A server that has just kept somebody waiting in vain
    /// is not waited for again until it has answered a heartbeat.
    async fn run<T: FromRedisValue>(&self, cmd: client::Cmd) -> Result<T, LogError> {
        if !self.responsive.load(Ordering::Acquire) {
            return Err(LogError::Unreachable("it does not answer".to_owned()));
        }
        self.run_anyway(cmd).await
    }

    /// Runs a command, at most as long as an append may take.
    async fn run_anyway<T: FromRedisValue>(&self, cmd: client::Cmd) -> Result<T, LogError> {
        let Some(mut conn) = self.commands.conn() else {
            return Err(LogError::Unreachable("not connected".to_owned()));
        };
        let limit = self.settings.append_timeout;
        match tokio::time::timeout(limit, cmd.query_async::<T>(&mut conn)).await {
            Ok(Ok(value)) => {
                self.responsive.store(true, Ordering::Release);
                Ok(value)
            }
            Ok(Err(error)) => {
                self.commands.note(&error);
                Err(unreachable(&error))
            }
            Err(_) => {
                self.responsive.store(false, Ordering::Release);
                Err(LogError::Unreachable(format!("no answer within {} ms", limit.as_millis())))
            }
        }
    }

    fn reset_content(&self) -> String {
        serde_json::to_string(&Content::reset(&self.settings.pod)).unwrap_or_default()
    }

    /// Appends an event; its position.
    pub(super) async fn append(&self, content: &Content) -> Result<Seq, LogError> {
        let text = serde_json::to_string(content)
            .map_err(|error| LogError::Unreachable(error.to_string()))?;
        let mut cmd = client::cmd("EVAL");
        cmd.arg(scripts::APPEND)
            .arg(1)
            .arg(self.settings.log_name())
            .arg(text)
            .arg(self.settings.events_max)
            .arg(self.state.mirror.applied())
            .arg(self.reset_content());
        self.run(cmd).await
    }

    /// Renews the lease and acknowledges `applied`: the log's last position, and the server's clock
    /// in microseconds.
    pub(super) async fn heartbeat(&self, applied: Seq) -> Result<(Seq, u64), LogError> {
        let mut cmd = client::cmd("EVAL");
        cmd.arg(scripts::HEARTBEAT)
            .arg(2)
            .arg(self.settings.log_name())
            .arg(self.settings.pods_name())
            .arg(&self.settings.pod)
            .arg(applied)
            .arg(millis(self.settings.lease))
            .arg(self.settings.events_max)
            .arg(self.reset_content())
            .arg(u8::from(self.settings.trust_fail_over));
        self.run_anyway(cmd).await
    }

    /// Who has applied a position.
    pub(super) async fn ask_acks(&self, seq: Seq) -> Result<AcksAnswer, LogError> {
        let mut cmd = client::cmd("EVAL");
        cmd.arg(scripts::ACKS)
            .arg(2)
            .arg(self.settings.log_name())
            .arg(self.settings.pods_name())
            .arg(seq)
            .arg(millis(self.settings.lease / DRIFT_DIVISOR));
        let (known, live, applied, missing, there): (i64, usize, usize, Vec<String>, u8) =
            self.run(cmd).await?;
        Ok(AcksAnswer {
            known_ms: u64::try_from(known).unwrap_or(0),
            acks: Acks { applied, live, missing, complete: false },
            is_there: there == 1,
        })
    }

    /// The last position.
    pub(super) async fn last(&self) -> Result<Seq, LogError> {
        let mut cmd = client::cmd("XREVRANGE");
        cmd.arg(self.settings.log_name()).arg("+").arg("-").arg("COUNT").arg(1);
        let found: Vec<(String, client::Value)> = self.run(cmd).await?;
        let id = found.first().map_or("0", |(id, _)| id.as_str());
        Ok(position_of(id).unwrap_or(0))
    }

    /// The pods on the list whose lease may still run.
    pub(super) async fn list_pods(&self) -> Result<Vec<(String, Seq)>, LogError> {
        let mut cmd = client::cmd("HGETALL");
        cmd.arg(self.settings.pods_name());
        let all: Vec<(String, String)> = self.run(cmd).await?;
        let offset = self.server_offset.load(Ordering::Acquire);
        let now_ms = (offset / 1000).saturating_add(self.state.now());
        let live = all.into_iter().filter_map(|(pod, text)| {
            let (applied, until) = text.split_once(' ')?;
            let until: u64 = until.parse().ok()?;
            (until > now_ms).then_some((pod, applied.parse().ok()?))
        });
        let mut live: Vec<_> = live.collect();
        live.sort();
        Ok(live)
    }

    pub(super) async fn forget_me(&self) -> Result<(), LogError> {
        let mut cmd = client::cmd("HDEL");
        cmd.arg(self.settings.pods_name()).arg(&self.settings.pod);
        self.run::<client::Value>(cmd).await.map(|_| ())
    }
}

pub(super) fn unreachable(error: &RedisError) -> LogError {
    LogError::Unreachable(error.to_string())
}

/// The position within the identifier of a stream's entry.
pub(super) fn position_of(id: &str) -> Option<Seq> {
    id.split('-').next()?.parse().ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
