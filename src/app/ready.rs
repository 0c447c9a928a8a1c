//! Whether this instance wants traffic.

use std::sync::atomic::{AtomicU8, Ordering};

/// The states, which only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Not yet: it is loading what is hot.
    Warming,
    /// It does.
    Yes,
    /// Not any more.
    Draining,
}

/// The state, shared with the admin port.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Goes forward to a state; never back.
    pub fn set(&self, state: Ready) {
        self.0.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// The state now.
    pub fn get(&self) -> Ready {
        match self.0.load(Ordering::Acquire) {
            0 => Ready::Warming,
            1 => Ready::Yes,
            _ => Ready::Draining,
        }
    }
}
