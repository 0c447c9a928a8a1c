//! Writing behind the response: a bounded queue for each server, drained in batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_redis::client::{self, Pipeline, RedisError, Value};
use outrigger_redis::error::{is_out_of_memory, is_read_only};
use outrigger_semantics::storable::has_validator;
use tokio::sync::mpsc;

use super::RedisTier;
use super::counts::WriteResult;
use super::shard::Shard;
use crate::entry::Entry;
use crate::envelope::seal::Keys;
use crate::lookup::Scope;
use crate::tier::{Settled, Ticket};

/// Entries of one batch.
const BATCH_MAX: usize = 64;
/// Bytes of bodies of one batch.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Jobs that may wait, whatever their size.
const JOBS_MAX: usize = 16_384;
/// What a job takes besides its body.
const JOB_BYTES: usize = 1024;
/// An entry that can be validated is kept this long after it can no longer be served.
const KEPT_FOR_VALIDATION_MS: i64 = 600_000;
/// Nothing is kept longer than this; who still wants it will have written it again.
const EXPIRE_MS_MAX: i64 = 86_400_000;
/// A descriptor outlives its variants by at least this.
const DESCRIPTOR_MS_MIN: i64 = 3_600_000;
/// How long it is known that a response is not for others.
const UNCACHEABLE_MS: u64 = 1000;

const RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

enum Job {
    Put { name: Vec<u8>, entry: Arc<Entry>, scope: Scope },
    Settle { ticket: Ticket, how: Settled },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { entry, .. } => JOB_BYTES + entry.body.len(),
            Self::Settle { .. } => JOB_BYTES,
        }
    }
}

/// What waits to be written to one server.
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Job>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
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
    pub(super) fn put(&self, name: Vec<u8>, entry: Arc<Entry>, scope: Scope) -> bool {
        self.push(Job::Put { name, entry, scope })
    }

    /// Queues the end of a claim. Where there is no room the claim ends by itself.
    pub(super) fn settle(&self, ticket: Ticket, how: Settled) {
        self.push(Job::Settle { ticket, how });
    }

    fn push(&self, job: Job) -> bool {
        let bytes = job.bytes();
        let limit = self.bytes_max.load(Ordering::Relaxed).min(JOBS_MAX * JOB_BYTES * 8);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= limit;
        if !fits || self.sender.send(job).is_err() {
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

impl Writer {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        while receiver.recv_many(&mut jobs, BATCH_MAX).await > 0 {
            let Some(tier) = self.tier.upgrade() else { return };
            let mut batch = Vec::new();
            let mut bytes = 0;
            for job in jobs.drain(..) {
                if bytes + job.bytes() > BATCH_BYTES_MAX && !batch.is_empty() {
                    self.write(&tier, std::mem::take(&mut batch)).await;
                    bytes = 0;
                }
                bytes += job.bytes();
                batch.push(job);
            }
            self.write(&tier, batch).await;
        }
    }

    async fn write(&mut self, tier: &RedisTier, jobs: Vec<Job>) {
        let bytes: usize = jobs.iter().map(Job::bytes).sum();
        let entries = jobs.iter().filter(|job| matches!(job, Job::Put { .. })).count();
        let count = |result, times: usize| (0..times).for_each(|_| tier.counts.write(result));
        let usable = (!self.shard.health.is_down()).then(|| self.shard.link.conn()).flatten();
        match usable {
            None => count(WriteResult::Dropped, entries),
            Some(mut conn) => {
                let mut pipeline = client::pipe();
                pipeline.ignore_errors();
                let puts = fill(&mut pipeline, tier, &jobs);
                let asked = pipeline.query_async::<Vec<Value>>(&mut conn);
                match tokio::time::timeout(tier.settings.write_timeout, asked).await {
                    Ok(Ok(replies)) => {
                        self.shard.health.succeeded();
                        self.read(tier, &puts, replies);
                    }
                    Ok(Err(error)) => {
                        puts.iter().for_each(|put| release(tier, put));
                        count(WriteResult::Failed, puts.len());
                        self.shard.health.failed(&error);
                        self.shard.link.note(&error);
                    }
                    Err(_) => {
                        puts.iter().for_each(|put| release(tier, put));
                        count(WriteResult::Failed, puts.len());
                        self.shard.health.timed_out();
                    }
                }
            }
        }
        self.shard.queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Sorts the replies to the SETs, which come last for each entry.
    fn read(&mut self, tier: &RedisTier, puts: &[Put], replies: Vec<Value>) {
        let mut replies = replies.into_iter();
        for put in puts {
            let old = tier.quota.as_ref().map(|_| (number(replies.next()), number(replies.next())));
            let result = match replies.next() {
                // NX found a value there.
                Some(Value::Nil) => {
                    release(tier, put);
                    continue;
                }
                Some(Value::ServerError(error)) => self.refused(&RedisError::from(error)),
                _ => WriteResult::Stored,
            };
            tier.counts.write(result);
            if result == WriteResult::Stored {
                if self.refusing.take().is_some() {
                    tracing::info!(server = self.name(), "redis takes writes again");
                }
                if let (Some(quota), Some((old_bytes, old_ms))) = (&tier.quota, old) {
                    // STRLEN tells of the value, and what is counted holds the name too.
                    let old_bytes = if old_bytes > 0 { old_bytes + put.name_bytes } else { 0 };
                    quota.replaced(now_ms(), (put.bytes, put.expire_ms), (old_bytes, old_ms));
                }
            } else {
                release(tier, put);
            }
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

fn release(tier: &RedisTier, put: &Put) {
    if let Some(quota) = &tier.quota {
        quota.release(put.bytes);
    }
}

/// Puts the jobs into a pipeline. With a quota each SET is preceded by two questions about what it
/// replaces.
fn fill(pipeline: &mut Pipeline, tier: &RedisTier, jobs: &[Job]) -> Vec<Put> {
    let ring = tier.keys.as_ref().map(Keys::ring);
    let mut puts = Vec::new();
    for job in jobs {
        let (name, entry, scope) = match job {
            Job::Put { name, entry, scope } => (name, entry, *scope),
            Job::Settle { ticket, how } => {
                settle(pipeline, ticket, *how);
                continue;
            }
        };
        let expire_ms = expire_ms(entry);
        let value = tier.settings.codec.entry(entry, name, ring.as_deref());
        let Some(value) = value.filter(|_| expire_ms > 0) else { continue };
        let bytes = name.len() + value.len();
        if tier.quota.as_ref().is_some_and(|quota| !quota.reserve(bytes)) {
            tier.counts.write(WriteResult::Quota);
            continue;
        }
        if !entry.variant.is_invariant() {
            let primary = tier.settings.names.entry(scope, entry.digest);
            let names = entry.variant.names();
            let ring = ring.as_deref();
            if let Some(descriptor) =
                tier.settings.codec.descriptor(&entry.key, names, &primary, ring)
            {
                let ms = expire_ms.max(DESCRIPTOR_MS_MIN);
                pipeline.cmd("SET").arg(primary).arg(descriptor).arg("PX").arg(ms).ignore();
            }
        }
        if tier.quota.is_some() {
            pipeline.cmd("STRLEN").arg(name);
            pipeline.cmd("PTTL").arg(name);
        }
        let set = pipeline.cmd("SET").arg(name).arg(value).arg("PX").arg(expire_ms);
        if !entry.is_good_enough() {
            // An error or an empty body never replaces what another pod has stored.
            set.arg("NX");
        }
        let name_bytes = i64::try_from(name.len()).unwrap_or(0);
        puts.push(Put { bytes, name_bytes, expire_ms });
    }
    puts
}

fn settle(pipeline: &mut Pipeline, ticket: &Ticket, how: Settled) {
    match how {
        Settled::Done => pipeline
            .cmd("EVAL")
            .arg(RELEASE)
            .arg(1)
            .arg(&*ticket.name)
            .arg(ticket.token.to_string())
            .ignore(),
        Settled::Uncacheable => pipeline
            .cmd("SET")
            .arg(&*ticket.name)
            .arg(super::claims::UNCACHEABLE)
            .arg("XX")
            .arg("PX")
            .arg(UNCACHEABLE_MS)
            .ignore(),
    };
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
