//! Coherence: the purge log and what it says about stored responses.
//!
//! All invalidation is one totally ordered log. Every stored response carries the position that
//! this pod had applied **before** its fetch began; it is valid only while no matching event has a
//! later position. So a purge beats a fill that was already on its way, tags need no index, and
//! purging a tag costs the same however many responses carry it.
//!
//! Where positions come from is behind [`Sequence`]: here a counter of this process
//! ([`LocalSequence`]); a log shared by all pods replaces it without a change elsewhere.

pub mod event;
pub mod log;
pub mod mirror;

pub use event::{Event, Matcher, Mode, PurgeRequest};
pub use log::{LocalSequence, PurgeLog, Sequence, SequenceError};
pub use mirror::{Mirror, Verdict};

/// A position in the purge log. Zero is before the first event.
pub type Seq = u64;
