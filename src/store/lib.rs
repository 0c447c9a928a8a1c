//! Stored responses and the tiers that hold them.
//!
//! A tier answers [`Lookup::Hit`], [`Lookup::Miss`] or [`Lookup::Unavailable`], never an
//! `Option`: a tier that fails must not look like one that has nothing. The memory tier answers at
//! once ([`memory`]); tiers behind a network implement [`tier::Tier`], whose provided method adds
//! the deadline, so that none can forget it.
//!
//! Whether a stored response may be used is not decided here but by `outrigger-semantics` (age,
//! directives) and `outrigger-coherence` (purges).

pub mod entry;
pub mod envelope;
pub mod lookup;
pub mod memory;
pub mod redis;
pub mod tier;

pub use entry::Entry;
pub use lookup::{Lookup, Miss, ShareRules, ShareScope, Unavailable, Wanted};
pub use memory::MemoryTier;
pub use redis::RedisTier;
pub use tier::{Claim, Counted, Settled, Ticket, Tier, Usable};
