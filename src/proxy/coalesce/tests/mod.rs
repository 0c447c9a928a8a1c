//! What a fetch promises, one caller at a time. Not in the files themselves, for `tests/model`
//! compiles those with primitives that work in its scheduler alone.

mod flight;
mod readers;
mod table;
mod unread;
mod vary;
