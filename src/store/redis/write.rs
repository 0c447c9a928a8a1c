//! Writing behind the response: each server has a task that drains its queue in batches, and sorts
//! what came of each write.

use std::sync::{Arc, Weak};
use std::time::Duration;

use outrigger_redis::Conn;
use outrigger_redis::client::{self, Cmd, RedisError, Value};
use outrigger_redis::error::{is_out_of_memory, is_read_only};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::clock::now_ms;
use super::commands::{Put, Unit, units};
use super::counts::WriteResult;
use super::queue::WriteCommand;
use super::shard::Shard;
use super::tier::RedisTier;

/// Number of commands in one batch.
const BATCH_MAX: usize = 64;
/// Bytes of the commands in one batch.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Starts the task that writes to one server.
pub(super) fn spawn(tier: &Arc<RedisTier>, shard: &Arc<Shard>) {
    if let Some(receiver) = shard.queue.open(tier.settings.queue_bytes_max) {
        let writer =
            Writer { tier: Arc::downgrade(tier), shard: Arc::clone(shard), refusing: None };
        tokio::spawn(writer.run(receiver));
    }
}

/// Writes what waits for one server.
struct Writer {
    tier: Weak<RedisTier>,
    shard: Arc<Shard>,
    /// Why Redis refused the last write, if it did; each reason is logged once.
    refusing: Option<&'static str>,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<WriteCommand>) {
        let mut commands = Vec::with_capacity(BATCH_MAX);
        while receiver.recv_many(&mut commands, BATCH_MAX).await > 0 {
            let Some(tier) = self.tier.upgrade() else { return };
            let mut batch = Vec::new();
            let mut bytes = 0;
            for command in commands.drain(..) {
                if bytes + command.bytes() > BATCH_BYTES_MAX && !batch.is_empty() {
                    self.write(&tier, std::mem::take(&mut batch)).await;
                    bytes = 0;
                }
                bytes += command.bytes();
                batch.push(command);
            }
            self.write(&tier, batch).await;
        }
    }

    async fn write(&mut self, tier: &RedisTier, commands: Vec<WriteCommand>) {
        let bytes: usize = commands.iter().map(WriteCommand::bytes).sum();
        match (!self.shard.health.is_down()).then(|| self.shard.link.conn()).flatten() {
            None => commands
                .iter()
                .filter(|command| matches!(command, WriteCommand::Put { .. }))
                .for_each(|_| tier.counts.write(WriteResult::Dropped)),
            Some(conn) => self.send(tier, conn, units(tier, &commands)).await,
        }
        self.shard.queue.written(bytes);
    }

    /// Sends all units: in one pipeline to a server, in a pipeline each to a cluster.
    async fn send(&mut self, tier: &RedisTier, conn: Conn, units: Vec<Unit>) {
        let limit = tier.settings.write_timeout;
        if let Conn::Single(_) = conn {
            let mut commands = Vec::with_capacity(units.len());
            let mut waiting = Vec::with_capacity(units.len());
            for unit in units {
                waiting.push((unit.commands.len(), unit.put));
                commands.extend(unit.commands);
            }
            let answered = replies(conn, commands, limit).await;
            let mut left = answered.map(Vec::into_iter);
            for (count, put) in waiting {
                let own = left.as_mut().map(|left| left.by_ref().take(count));
                let own = own.map(Iterator::collect).map_err(|failed| failed.clone());
                self.read(tier, put, own);
            }
            return;
        }
        let mut sent = JoinSet::new();
        for Unit { commands, put } in units {
            let conn = conn.clone();
            sent.spawn(async move { (put, replies(conn, commands, limit).await) });
        }
        while let Some(Ok((put, answered))) = sent.join_next().await {
            self.read(tier, put, answered);
        }
    }

    /// Counts what came of a unit, and notes it for health and quota.
    fn read(&mut self, tier: &RedisTier, put: Option<Put>, answered: Result<Vec<Value>, Failed>) {
        match &answered {
            Ok(_) => self.shard.health.succeeded(),
            Err(Failed::Timeout) => self.shard.health.timed_out(),
            Err(Failed::Error(error)) => {
                self.shard.health.failed(error);
                self.shard.link.note(error);
            }
        }
        let Some(put) = put else { return };
        let Ok(mut replies) = answered else {
            release(tier, &put);
            return tier.counts.write(WriteResult::Failed);
        };
        let result = match replies.pop() {
            // A server error found a value under the name.
            Some(Value::Nil) => return release(tier, &put),
            Some(Value::Int(_)) => {
                tier.overtaken(&put.entry);
                WriteResult::Overtaken
            }
            Some(Value::ServerError(error)) => self.refused(&RedisError::from(error)),
            _ => WriteResult::Stored,
        };
        tier.counts.write(result);
        if result != WriteResult::Stored {
            return release(tier, &put);
        }
        if self.refusing.take().is_some() {
            tracing::info!(server = self.name(), "redis takes writes again");
        }
        if let Some(quota) = &tier.quota {
            let (old_ms, old_bytes) = (number(replies.pop()), number(replies.pop()));
            // STRLEN gives the bytes of the value; the account also counts the name.
            let old_bytes = if old_bytes > 0 { old_bytes + put.name_bytes } else { 0 };
            quota.replaced(now_ms(), (put.bytes, put.expire_ms), (old_bytes, old_ms));
        }
    }

    fn refused(&mut self, error: &RedisError) -> WriteResult {
        let (result, why) = if is_out_of_memory(error) {
            (WriteResult::OutOfMemory, "it is out of memory")
        } else if is_read_only(error) {
            (WriteResult::ReadOnly, "it is read-only, or lacks replicas or disk")
        } else {
            (WriteResult::Failed, "see the error")
        };
        if self.refusing != Some(why) {
            let server = self.name().to_owned();
            tracing::warn!(server, why, %error, "redis refuses writes");
            self.refusing = Some(why);
        }
        self.shard.link.note(error);
        result
    }

    fn name(&self) -> &str {
        self.shard.link.target().name()
    }
}

/// Why there are no replies.
#[derive(Clone)]
enum Failed {
    Timeout,
    Error(RedisError),
}

/// Sends commands in one pipeline. A refused command is among the replies.
async fn replies(
    mut conn: Conn,
    commands: Vec<Cmd>,
    limit: Duration,
) -> Result<Vec<Value>, Failed> {
    let mut pipeline = client::pipe();
    pipeline.ignore_errors();
    commands.into_iter().for_each(|command| {
        pipeline.add_command(command);
    });
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    let asked = pipeline.query_async::<Vec<Value>>(&mut conn);
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(replies)) => Ok(replies),
        Ok(Err(error)) => Err(Failed::Error(error)),
        Err(_) => Err(Failed::Timeout),
    }
}

fn release(tier: &RedisTier, put: &Put) {
    if let Some(quota) = &tier.quota {
        quota.release(put.bytes);
    }
}

fn number(reply: Option<Value>) -> i64 {
    match reply {
        Some(Value::Int(number)) => number,
        _ => 0,
    }
}
