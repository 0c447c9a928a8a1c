//! Whether this process is ready for traffic, as `/readyz` answers it.

use std::sync::atomic::{AtomicU8, Ordering};

/// The states of readiness, in the order in which a process goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Not ready yet: it connects to Redis, or loads frequently used responses from there.
    Warming,
    /// Ready for traffic.
    Yes,
    /// Not ready any more: the process is about to end.
    Draining,
}

/// The state of this process. The composition sets it and the admin port reads it.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Moves on to a state. An earlier state than the present one is ignored, so that a warm start
    /// that ends while the process drains does not make it ready again.
    pub fn set(&self, state: Ready) {
        self.0.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// The state at present.
    pub fn get(&self) -> Ready {
        match self.0.load(Ordering::Acquire) {
            0 => Ready::Warming,
            1 => Ready::Yes,
            _ => Ready::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_process_does_not_become_ready_again() {
        let readiness = Readiness::default();
        assert_eq!(readiness.get(), Ready::Warming);
        readiness.set(Ready::Yes);
        readiness.set(Ready::Draining);
        readiness.set(Ready::Yes);
        assert_eq!(readiness.get(), Ready::Draining);
    }
}
