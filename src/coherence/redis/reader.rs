//! Following the stream: one connection that waits for events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_redis::client::streams::{StreamId, StreamReadReply};
use outrigger_redis::client::{self, RedisError};
use outrigger_redis::{Conn, client::FromRedisValue};

use super::commands::position_of;
use super::log::RedisLog;
use crate::event::{Content, Record};
use crate::follow::Follower;

/// Number of events in one answer.
const COUNT: usize = 256;
/// How long the server waits for an event before it answers that there is none, milliseconds.
const BLOCK_MS: usize = 500;
/// How much longer an answer may take before the connection counts as broken.
const GRACE: Duration = Duration::from_millis(1000);

/// Pause while the connection for commands is not there yet.
const COMPANION_PAUSE: Duration = Duration::from_millis(5);

/// Follows the log. Runs for ever, or until its link ends.
pub(super) async fn run(log: Arc<RedisLog>) {
    let mut state = log.reading.state();
    let mut told_down = false;
    let mut follower = Follower::default();
    loop {
        state.mark_unchanged();
        let reason = match log.reading.conn() {
            Some(conn) => {
                let reason = follow(&log, conn, &mut follower, &mut told_down).await;
                log.reading.reopen();
                reason
            }
            None => match &*state.borrow() {
                outrigger_redis::link::LinkState::Down(error) => error.to_string(),
                _ => String::new(),
            },
        };
        let was = log.connected.swap(false, Ordering::AcqRel);
        if !reason.is_empty() && (was || !told_down) {
            told_down = true;
            tracing::warn!(reason, "purge log lost");
        }
        if tokio::time::timeout(GRACE, state.changed()).await.is_ok_and(|open| open.is_err()) {
            return;
        }
    }
}

/// Follows the log on one connection until that fails; returns the reason.
async fn follow(
    log: &RedisLog,
    mut conn: Conn,
    follower: &mut Follower,
    told_down: &mut bool,
) -> String {
    loop {
        let caught_up = match read(log, &mut conn, follower).await {
            Ok(count) => count < COUNT,
            Err(error) => return error.to_string(),
        };
        if caught_up && !log.caught_up.load(Ordering::Acquire) {
            // The first beat may find that the log has to begin anew. What other pods have stored
            // cannot be judged before that has been read.
            if log.commands.conn().is_none() {
                // Its connection is opened beside this one, and mostly follows at once.
                tokio::time::sleep(COMPANION_PAUSE).await;
                continue;
            }
            let applied = log.state.mirror.applied();
            match log.heartbeat(applied).await {
                Ok((last, _)) if last > applied => continue,
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
        if caught_up && !log.connected.swap(true, Ordering::AcqRel) {
            *told_down = false;
            log.caught_up.store(true, Ordering::Release);
            tracing::info!(
                server = log.reading.target().name(),
                applied = log.state.mirror.applied(),
                "purge log connected"
            );
            log.applied.notify_one();
        }
    }
}

/// Why no events came.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The server did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke, or the server refused the command.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Waits for events and applies them; returns their number.
async fn read(
    log: &RedisLog,
    conn: &mut Conn,
    follower: &mut Follower,
) -> Result<usize, ReadError> {
    // The first answer comes at once, so that a pod soon knows that the log is empty.
    let block = if log.connected.load(Ordering::Acquire) { BLOCK_MS } else { 1 };
    let mut cmd = client::cmd("XREAD");
    cmd.arg("COUNT").arg(COUNT).arg("BLOCK").arg(block).arg("STREAMS");
    cmd.arg(log.settings.log_name()).arg(format!("{}-0", log.state.mirror.applied()));
    let limit = Duration::from_millis(BLOCK_MS as u64) + GRACE;
    let asked = cmd.query_async::<Option<StreamReadReply>>(conn);
    let reply =
        tokio::time::timeout(limit, asked).await.map_err(|_| ReadError::Timeout(limit))??;
    let ids = reply.map(|reply| reply.keys).unwrap_or_default().into_iter().flat_map(|key| key.ids);
    let mut count = 0;
    for id in ids {
        count += 1;
        if let Some(record) = record_of(id) {
            log.state.absorb(follower, &record);
        }
    }
    if count > 0 {
        log.applied.notify_one();
    }
    Ok(count)
}

/// Reads an entry of the stream. `None` if its identifier is no position; content that cannot be
/// understood is `None` within the record, and counts as a purge of everything.
fn record_of(id: StreamId) -> Option<Record> {
    let seq = position_of(&id.id)?;
    let text = |name: &str| {
        id.map.get(name).and_then(|value| String::from_redis_value(value.clone()).ok())
    };
    let prev = text("p").and_then(|prev| prev.parse().ok()).unwrap_or(0);
    let content = text("e").and_then(|text| serde_json::from_str::<Content>(&text).ok());
    if content.is_none() {
        tracing::warn!(seq, "an event of the purge log is not understood: it voids everything");
    }
    Some(Record { seq, prev, content })
}
