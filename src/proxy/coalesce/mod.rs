//! Collapsing concurrent requests for one missing response into one fetch.
//!
//! A [`Flight`](flight::Flight) is one fetch that is under way: one producer, any number of
//! readers. Readers learn first how it was resolved, then receive bytes as they arrive. The
//! [`table`] finds the flight for a key. What can be shared is decided by the producer when the
//! response head is there; requests with credentials never come here. Model checked in
//! `tests/model`.

pub(crate) mod flight;
pub(crate) mod table;
#[cfg(test)]
mod tests;
