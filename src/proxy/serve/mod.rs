//! Client connections: listeners, worker threads, and HTTP/1.1 and HTTP/2 on one port.
//!
//! One acceptor per listener dispatches connections in turn to worker threads, each with a
//! single-threaded runtime of its own. This was measured against one multi-threaded runtime and
//! against a listener per core; the figures are in
//! `src/decisions/001-one-runtime-per-worker.md`. What a request means is not
//! known here: `pipeline` answers it.

mod connection;
mod io;
mod listen;
mod request_line;
mod time_limits;
mod workers;

pub use listen::{Bound, ListenAddress, ListenAddressError, ListenError, bind};
pub use workers::{Running, run};
