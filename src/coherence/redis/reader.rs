//! Following the stream: one connection that waits for events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_redis::client::streams::{StreamId, StreamReadReply};
use outrigger_redis::client::{self, RedisError};
use outrigger_redis::{Conn, client::FromRedisValue};

use super::RedisLog;
use super::commands::position_of;
use crate::event::{Content, Record};
use crate::follow::Follower;

/// Events of one answer.
const COUNT: usize = 256;
/// How long the server waits for an event before it answers that there is none.
const BLOCK_MS: usize = 500;
/// Without an answer for so much longer the connection is of no use.
const GRACE: Duration = Duration::from_millis(1000);

/// Pause while the connection for commands is not there yet.
const COMPANION_PAUSE: Duration = Duration::from_millis(5);

/// Runs for ever.
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

/// Follows until something fails; the reason.
async fn follow(
    log: &RedisLog,
    mut conn: Conn,
    follower: &mut Follower,
    told_down: &mut bool,
) -> String {
    loop {
        let caught_up = match read(log, &mut conn, follower).await {
            Ok(count) => count < COUNT,
            Err(reason) => return reason,
        };
        if caught_up && !log.caught_up.load(Ordering::Acquire) {
            // The first beat may find that the log has to begin anew: before that has been read,
            // what others have stored cannot be judged.
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

/// Waits for events and applies them; their number.
async fn read(log: &RedisLog, conn: &mut Conn, follower: &mut Follower) -> Result<usize, String> {
    // The first answer comes at once, so that a pod knows soon that there is nothing to know.
    let block = if log.connected.load(Ordering::Acquire) { BLOCK_MS } else { 1 };
    let mut cmd = client::cmd("XREAD");
    cmd.arg("COUNT").arg(COUNT).arg("BLOCK").arg(block).arg("STREAMS");
    cmd.arg(log.settings.log_name()).arg(format!("{}-0", log.state.mirror.applied()));
    let limit = Duration::from_millis(BLOCK_MS as u64) + GRACE;
    let asked = cmd.query_async::<Option<StreamReadReply>>(conn);
    let reply = tokio::time::timeout(limit, asked)
        .await
        .map_err(|_| format!("no answer within {} ms", limit.as_millis()))?
        .map_err(|error: RedisError| error.to_string())?;
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

/// `None` for what cannot be an event of ours; what cannot be understood is kept as such.
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
