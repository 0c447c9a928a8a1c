//! Collapsing concurrent requests for one missing response into one fetch.
//!
//! A [`Flight`](flight::Flight) is one fetch under way, with one producer and any number of
//! readers. Readers first learn how it was resolved, then receive bytes as they arrive;
//! [`readers`] keeps them from holding each other back. The [`table`] finds the flight for a key,
//! [`vary`] the key for a request. The producer decides what can be shared when it has the response
//! head; which requests may share at all is decided by the pipeline, which also does the fetching.
//! [`unread`] counts the fetches that go on without clients. All but `vary` are model checked in
//! `tests/model`.

pub(crate) mod flight;
pub(crate) mod readers;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod unread;
pub(crate) mod vary;
