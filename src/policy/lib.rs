//! Policy: what an operator says about caching, from YAML to the form that requests are matched
//! against.
//!
//! A document ([`Document`]) is parsed so that every invalid value is refused where it stands
//! ([`values`]), documents of several sources are folded into one ([`fold`]), and the result is
//! compiled into an immutable [`Snapshot`], which a request looks up once and holds to its end.
//! The cache key is built here too ([`key`]), because only policy knows what belongs in it, and so
//! that `outrigger explain` gives the answer that the proxy acts on.
//!
//! Pure: no file is read and no clock is asked. Where policy comes from is the business of
//! `outrigger-control`.

pub mod aliases;
pub mod check;
pub mod compile;
pub mod condition;
pub mod cookies;
pub mod document;
pub mod error;
pub mod explain;
pub mod fold;
pub mod guard;
mod index;
pub mod key;
pub mod mesh;
mod path;
pub mod query;
mod sharing;
pub mod snapshot;
mod text;
pub mod uri;
#[cfg(test)]
mod uri_tests;
pub mod values;
pub mod vary;
pub mod yaml;

pub use document::Document;
pub use key::CacheKey;
pub use mesh::{Arrival, Peer, PeerError, Side, SideError};
pub use snapshot::{Route, Snapshot};
pub use uri::{Authority, RequestTarget, Url};
