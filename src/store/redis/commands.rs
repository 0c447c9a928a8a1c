//! From what is to be written to the Redis commands that write it.

use std::sync::Arc;

use outrigger_redis::client::{self, Cmd};
use outrigger_semantics::storable::has_validator;

use super::clock::now_ms;
use super::counts::WriteResult;
use super::queue::WriteCommand;
use super::tier::RedisTier;
use crate::entry::Entry;
use crate::envelope::digits;
use crate::envelope::seal::{Keyring, Keys};
use crate::lookup::ShareScope;
use crate::tier::{ClaimTicket, Settled};

/// What a claim says once it is known that the response cannot be shared.
pub(super) const UNCACHEABLE: &str = "-";
/// How long an entry with a validator is kept after it can no longer be served, milliseconds.
const KEPT_FOR_VALIDATION_MS: i64 = 600_000;
/// Longest expiry of a value, milliseconds. An entry that is still in use is written again by then.
const EXPIRE_MS_MAX: i64 = 86_400_000;
/// Shortest expiry of a descriptor, milliseconds: it has to outlive its variants.
const DESCRIPTOR_MS_MIN: i64 = 3_600_000;
/// How long pods remember that a response cannot be shared, milliseconds.
const UNCACHEABLE_MS: u64 = 1000;

/// Stores a value, unless what is there has to stay: `ARGV[3]` says that nothing may be replaced, and
/// a value that is more recent is left too (`Recency::is_older_than` of a response that may not be
/// usable). Replies with a status, nil, or 1.
const STORE: &str = "local old=redis.pcall('GETRANGE',KEYS[1],0,43) \
     if type(old)~='string' then old='' end \
     if #old>0 and ARGV[3]=='1' then return false end \
     if string.sub(old,1,3)=='OR\\2' then \
     local date,at=tonumber(string.sub(old,17,30)),tonumber(string.sub(old,31,44)) \
     if date and at and date>=tonumber(ARGV[4]) and at>tonumber(ARGV[5]) then return 1 end end \
     return redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2])";
/// Marks a claim as uncacheable, if it is still the one with this token.
const UNCACHEABLE_IF_OURS: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then \
     return redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) end return 0";
/// Deletes a claim, if it is still the one with this token.
const RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

/// A value that is being stored.
pub(super) struct Put {
    /// The stored response.
    pub(super) entry: Arc<Entry>,
    /// Bytes of name and value.
    pub(super) bytes: usize,
    /// Bytes of the name.
    pub(super) name_bytes: i64,
    /// Milliseconds after which the value expires.
    pub(super) expire_ms: i64,
}

/// Commands about one name. A cluster takes them together, and apart from those about other names.
pub(super) struct Unit {
    /// The commands, in their order.
    pub(super) commands: Vec<Cmd>,
    /// Set if the last command stores an entry.
    pub(super) put: Option<Put>,
}

/// Turns what is to be written into commands. What exceeds the quota is left out, and counted.
pub(super) fn units(tier: &RedisTier, commands: &[WriteCommand]) -> Vec<Unit> {
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

/// Stores an entry. With a quota, two questions about the value that it replaces come before.
fn put(tier: &RedisTier, ring: Option<&Keyring>, name: &[u8], entry: &Arc<Entry>) -> Option<Unit> {
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
    // An error never replaces what another pod has stored.
    let only_if_absent = u8::from(!entry.is_good());
    let [date, requested_at] = digits(entry.recency);
    let mut store = client::cmd("EVAL");
    store.arg(STORE).arg(1).arg(name).arg(value).arg(expire_ms).arg(only_if_absent);
    store.arg(date).arg(requested_at);
    commands.push(store);
    let name_bytes = i64::try_from(name.len()).unwrap_or(0);
    let entry = Arc::clone(entry);
    Some(Unit { commands, put: Some(Put { entry, bytes, name_bytes, expire_ms }) })
}

/// Stores the descriptor of an entry's key: by which fields it varies.
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
fn settle(ticket: &ClaimTicket, how: Settled) -> Cmd {
    let mut cmd = client::cmd("EVAL");
    let token = ticket.token.to_string();
    match how {
        Settled::Done => cmd.arg(RELEASE).arg(1).arg(&*ticket.name).arg(token),
        Settled::Uncacheable => cmd
            .arg(UNCACHEABLE_IF_OURS)
            .arg(1)
            .arg(&*ticket.name)
            .arg(token)
            .arg(UNCACHEABLE)
            .arg(UNCACHEABLE_MS),
    };
    cmd
}

/// For how long the entry can be of use from now, milliseconds.
fn expire_ms(entry: &Entry) -> i64 {
    let kept = if has_validator(&entry.headers) { KEPT_FOR_VALIDATION_MS } else { 0 };
    let until = entry.lifetimes.usable_until().0.saturating_add(kept);
    until.saturating_sub(now_ms()).min(EXPIRE_MS_MAX)
}
