//! The sources of the coalescer.

#[allow(dead_code)]
#[path = "../../src/proxy/coalesce/flight.rs"]
pub(crate) mod flight;
#[allow(dead_code)]
#[path = "../../src/proxy/coalesce/readers.rs"]
pub(crate) mod readers;
#[allow(dead_code)]
#[path = "../../src/proxy/coalesce/table.rs"]
pub(crate) mod table;
#[allow(dead_code)]
#[path = "../../src/proxy/coalesce/unread.rs"]
pub(crate) mod unread;
