//! The rules of HTTP caching for a shared cache, as pure functions.
//!
//! This crate answers questions: may this response be stored, for how long is it fresh, may this
//! stored response answer that request, what does a 304 change. It follows RFC 9111 (caching),
//! RFC 9110 (conditional and range requests), RFC 5861 (stale windows), RFC 8246 (immutable),
//! RFC 9211 (`Cache-Status`), RFC 9213 (targeted cache control) and RFC 9875 (cache groups).
//!
//! What they ask is listed in [`rfc`], row by row, with the tests that show it.
//!
//! It does no I/O, reads no clock, holds no lock and logs nothing: time comes in as
//! [`UnixMillis`], header fields as [`http::HeaderMap`]. Everything that a hit needs is computed
//! when the response is stored ([`Lifetimes`]), so that a hit is a few comparisons.
//!
//! It does not know about policy files, tiers or connections: what an operator may tune arrives
//! as plain values in [`StoreRules`].

pub mod cache_status;
pub mod conditional;
pub mod digest;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod invalidate;
pub mod negotiate;
pub mod partial;
pub mod range;
pub mod reuse;
pub mod rfc;
pub mod rules;
pub mod storable;
pub mod supersede;
pub mod tags;
pub mod targeted;
pub mod time;
pub mod update;
pub mod vary;

pub use cache_status::CacheStatus;
pub use digest::digest;
pub use directives::{RequestDirectives, ResponseDirectives};
pub use freshness::{FreshnessSource, Lifetimes};
pub use reuse::{Reuse, ValidateReason};
pub use rules::{SetCookie, StoreRules};
pub use storable::{NotStored, Stored};
pub use supersede::Recency;
pub use time::UnixMillis;
pub use vary::Variant;
