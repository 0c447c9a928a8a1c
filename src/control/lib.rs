//! Where policy comes from: sources offer documents, the [`Controller`] folds them into one
//! snapshot and publishes it.
//!
//! A document is taken whole or refused whole; what was in force stays in force. The controller
//! knows nothing about the data path: it hands a snapshot to a function.

mod controller;
mod file;
pub mod xds;

pub use controller::{Controller, Layer, Status};
pub use file::watch_file;
