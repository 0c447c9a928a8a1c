//! The synchronisation primitives of the coalescer, named in one place, so that `tests/model` can
//! compile the same sources against a scheduler that explores interleavings.

pub(crate) use std::sync::Arc;

pub(crate) use parking_lot::{Mutex, MutexGuard};

/// Locks a mutex. A function because the scheduler's mutex, unlike this one, can be poisoned.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
