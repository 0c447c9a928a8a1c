//! Coherence: the purge log and what it says about stored responses.
//!
//! All invalidation is one totally ordered log. Every stored response carries the position that
//! its pod had applied **before** its fetch began; it is valid only while no matching event has a
//! later position. So a purge beats a fill that was already on its way, tags need no index, and
//! purging a tag costs the same however many responses carry it.
//!
//! The log belongs to this process alone ([`PurgeLog::local`]) or to a namespace, in Redis
//! ([`SharedLog`]). What decides is free of input and output: [`mirror`] (what the log has said),
//! [`follow`] (that nothing it said is missing), [`holds`] and [`lease`] (when a pod may answer from
//! its store); `tests/simulation.rs` runs these through thousands of schedules.

pub mod event;
pub mod follow;
pub mod holds;
pub mod lease;
pub mod log;
pub mod mirror;
pub mod shared;

pub use event::{Action, Content, Event, Matcher, Mode, PurgeRequest, Record};
pub use log::{Acks, LogError, LogScope, PurgeLog, Purged};
pub use mirror::{Mirror, Verdict};
pub use shared::{HoldGuard, SharedLog, SharedSettings};

/// A position in the purge log. Zero is before the first event.
pub type Seq = u64;
