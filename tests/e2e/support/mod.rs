//! What the end-to-end tests share: child processes that never outlive their test, and a small HTTP client.

mod http;
mod process;
mod python;

pub(crate) use http::{Origin, Reply, get, request};
/// Less than the default interval of health checks (5 s): only a configured one is done by then.
pub(crate) const BELOW_DEFAULT_INTERVAL: std::time::Duration =
    std::time::Duration::from_millis(4_500);

pub(crate) use outrigger_test_support::{PATIENCE, free_port, outrigger, tool};
pub(crate) use process::{Outrigger, Process, outrigger_refuses};
pub(crate) use python::PythonProgram;

use std::time::{Duration, Instant};

/// Polls until `ready` holds; panics with `what` after `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
