//! The synchronisation primitives of the coalescer, named once, so that `tests/model` can compile
//! the same sources against a scheduler that tries out interleavings.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

/// Locks. What a panicking holder left behind is consistent: nothing here panics between two
/// writes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
