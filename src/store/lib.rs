//! Stored responses and the tiers that hold them.
//!
//! A tier answers [`Lookup::Hit`], [`Lookup::Miss`] or [`Lookup::Unavailable`], never an
//! `Option`: a tier that fails must not look like an empty one. The memory tier answers at once
//! ([`memory`]). Tiers that may take time or fail keep the contract of [`tier`]; the one in Redis is
//! [`redis`], and the format of its values is [`envelope`].
//!
//! Whether a stored response may be used is not decided here but by `outrigger-semantics` (age,
//! directives) and `outrigger-coherence` (purges).

pub mod departed;
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
pub use tier::{Claim, ClaimTicket, Counted, OnOvertaken, Settled, Tier, Usable};
