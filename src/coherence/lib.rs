//! Coherence: the purge log and what it says about stored responses.
//!
//! All invalidation is one totally ordered log. Every stored response carries the position that
//! its pod had applied **before** its fetch began; it is valid only while no matching event has a
//! later position. So a purge also invalidates what a fetch under way brings, tags need no index, and
//! a purge by tag costs the same however many responses carry the tag.
//!
//! The log belongs to this process alone ([`PurgeLog::local`]) or to a namespace, in Redis
//! ([`RedisLog`]). The deciding parts do no input or output: [`mirror`] (what the log has said),
//! [`follow`] (that no event is missing), [`holds`] and [`lease`] (when a pod may answer from its
//! store). `tests/simulation` runs them through thousands of schedules.

pub mod canonical;
pub mod event;
pub mod follow;
pub mod holds;
pub mod lease;
pub mod log;
mod marks;
pub mod mirror;
pub mod redis;
mod state;
mod wire;

pub use canonical::Canonicaliser;
pub use event::{Action, Content, Event, Matcher, PurgeMode, PurgeRequest, Record, TEXT_BYTES_MAX};
pub use log::{LogScope, PurgeLog};
pub use mirror::{Mirror, Verdict};
pub use redis::{HoldGuard, RedisLog, RedisLogSettings};
pub use state::{Acks, LogError, Purged};

/// A position in the purge log. Zero is before the first event.
pub type Seq = u64;
