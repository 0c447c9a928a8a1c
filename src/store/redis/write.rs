//! Writing behind the response: a bounded queue for each server, drained in batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_redis::Conn;
use outrigger_redis::client::{self, Cmd, RedisError, Value};
use outrigger_redis::error::{is_out_of_memory, is_read_only};
use outrigger_semantics::storable::has_validator;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::RedisTier;
use super::counts::WriteResult;
use super::shard::Shard;
use crate::entry::Entry;
use crate::envelope::seal::{Keyring, Keys};
use crate::lookup::ShareScope;
use crate::tier::{Settled, Ticket};

/// Entries of one batch.
const BATCH_MAX: usize = 64;
/// Bytes of bodies of one batch.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Jobs that may wait, whatever their size.
const COMMANDS_MAX: usize = 16_384;
/// What a command takes besides its body.
const COMMAND_BYTES: usize = 1024;
/// An entry that can be validated is kept this long after it can no longer be served.
const KEPT_FOR_VALIDATION_MS: i64 = 600_000;
/// Nothing is kept longer than this; who still wants it will have written it again.
const EXPIRE_MS_MAX: i64 = 86_400_000;
/// A descriptor outlives its variants by at least this.
const DESCRIPTOR_MS_MIN: i64 = 3_600_000;
/// How long it is known that a response is not for others.
const UNCACHEABLE_MS: u64 = 1000;

const UNCACHEABLE_IF_OURS: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then \
     return redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) end return 0";
const RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

enum WriteCommand {
    Put { name: Vec<u8>, entry: Arc<Entry>, scope: ShareScope },
    Settle { ticket: Ticket, how: Settled },
}

impl WriteCommand {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { entry, .. } => COMMAND_BYTES + entry.body.len(),
            Self::Settle { .. } => COMMAND_BYTES,
        }
    }
}

/// What waits to be written to one server.
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<WriteCommand>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<WriteCommand>>>,
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl Default for Queue {
    fn default() -> Self {
        // Bounded by the bytes that are counted, which the channel cannot do.
        let (sender, receiver) = mpsc::unbounded_channel();
        Queue {
            sender,
            receiver: Mutex::new(Some(receiver)),
            bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(0),
        }
    }
}

impl Queue {
    /// Bytes waiting.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues an entry; `false` if there is no room.
    pub(super) fn put(&self, name: Vec<u8>, entry: Arc<Entry>, scope: ShareScope) -> bool {
        self.push(WriteCommand::Put { name, entry, scope })
    }

    /// Queues the end of a claim. Where there is no room the claim ends by itself.
    pub(super) fn settle(&self, ticket: Ticket, how: Settled) {
        self.push(WriteCommand::Settle { ticket, how });
    }

    fn push(&self, command: WriteCommand) -> bool {
        let bytes = command.bytes();
        let limit = self.bytes_max.load(Ordering::Relaxed).min(COMMANDS_MAX * COMMAND_BYTES * 8);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= limit;
        if !fits || self.sender.send(command).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Starts the writer of a server.
pub(super) fn spawn(tier: &Arc<RedisTier>, shard: &Arc<Shard>) {
    shard.queue.bytes_max.store(tier.settings.queue_bytes_max, Ordering::Relaxed);
    let taken = shard.queue.receiver.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    if let Some(receiver) = taken {
        let writer =
            Writer { tier: Arc::downgrade(tier), shard: Arc::clone(shard), refusing: None };
        tokio::spawn(writer.run(receiver));
    }
}

struct Writer {
    tier: Weak<RedisTier>,
    shard: Arc<Shard>,
    /// Why Redis takes no writes at the moment.
    refusing: Option<&'static str>,
}

/// A value on its way.
struct Put {
    bytes: usize,
    name_bytes: i64,
    expire_ms: i64,
}

/// Commands about one name, which a cluster wants to have together, and apart from others.
struct Unit {
    commands: Vec<Cmd>,
    /// Set if the last command stores an entry.
    put: Option<Put>,
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
        self.shard.queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Sends all units: in one pipeline to a server, each in one of its own to a cluster.
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

    /// Sorts what came of a unit.
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
            // NX found a value there.
            Some(Value::Nil) => return release(tier, &put),
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
            // STRLEN tells of the value, and what is counted holds the name too.
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

/// Sends commands in one pipeline; a refused command is a reply like others.
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

/// What the commands want of Redis.
fn units(tier: &RedisTier, commands: &[WriteCommand]) -> Vec<Unit> {
    let ring = tier.keys.as_ref().map(Keys::ring);
    let mut units = Vec::with_capacity(commands.len());
    for command in commands {
        match command {
            WriteCommand::Put { name, entry, scope } => {
                let stored = put(tier, ring.as_deref(), name, entry);
                if stored.is_some() && !entry.variant.is_invariant() {
                    units.extend(descriptor(tier, ring.as_deref(), entry, *scope));
                }
                units.extend(stored);
            }
            WriteCommand::Settle { ticket, how } => {
                units.push(Unit { commands: vec![settle(ticket, *how)], put: None });
            }
        }
    }
    units
}

/// An entry. With a quota its SET comes behind two questions about what it replaces.
fn put(tier: &RedisTier, ring: Option<&Keyring>, name: &[u8], entry: &Entry) -> Option<Unit> {
    let expire_ms = expire_ms(entry);
    let value = tier.settings.codec.entry(entry, name, ring).filter(|_| expire_ms > 0)?;
    let bytes = name.len() + value.len();
    let mut commands = Vec::with_capacity(3);
    if let Some(quota) = &tier.quota {
        if !quota.reserve(bytes) {
            tier.counts.write(WriteResult::Quota);
            return None;
        }
        for question in ["STRLEN", "PTTL"] {
            let mut cmd = client::cmd(question);
            cmd.arg(name);
            commands.push(cmd);
        }
    }
    let mut set = client::cmd("SET");
    set.arg(name).arg(value).arg("PX").arg(expire_ms);
    if !entry.is_good_enough() {
        // An error or an empty body never replaces what another pod has stored.
        set.arg("NX");
    }
    commands.push(set);
    let name_bytes = i64::try_from(name.len()).unwrap_or(0);
    Some(Unit { commands, put: Some(Put { bytes, name_bytes, expire_ms }) })
}

/// What tells readers by which fields an entry's key varies.
fn descriptor(
    tier: &RedisTier,
    ring: Option<&Keyring>,
    entry: &Entry,
    scope: ShareScope,
) -> Option<Unit> {
    let name = tier.settings.names.entry(scope, entry.digest);
    let names = entry.variant.names();
    let value = tier.settings.codec.descriptor(&entry.key, names, &name, ring)?;
    let mut set = client::cmd("SET");
    set.arg(name).arg(value).arg("PX").arg(expire_ms(entry).max(DESCRIPTOR_MS_MIN));
    Some(Unit { commands: vec![set], put: None })
}

/// Ends a claim, if it is still the one that was won.
fn settle(ticket: &Ticket, how: Settled) -> Cmd {
    let mut cmd = client::cmd("EVAL");
    let token = ticket.token.to_string();
    match how {
        Settled::Done => cmd.arg(RELEASE).arg(1).arg(&*ticket.name).arg(token),
        Settled::Uncacheable => cmd
            .arg(UNCACHEABLE_IF_OURS)
            .arg(1)
            .arg(&*ticket.name)
            .arg(token)
            .arg(super::claims::UNCACHEABLE)
            .arg(UNCACHEABLE_MS),
    };
    cmd
}

/// How long the entry can be of use, milliseconds from now.
fn expire_ms(entry: &Entry) -> i64 {
    let kept = if has_validator(&entry.headers) { KEPT_FOR_VALIDATION_MS } else { 0 };
    let until = entry.lifetimes.usable_until().0.saturating_add(kept);
    until.saturating_sub(now_ms()).min(EXPIRE_MS_MAX)
}

fn number(reply: Option<Value>) -> i64 {
    match reply {
        Some(Value::Int(number)) => number,
        _ => 0,
    }
}

/// The wall clock: the expiry is Redis' affair, which knows no other.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 8)
}
