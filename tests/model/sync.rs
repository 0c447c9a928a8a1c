//! What `src/guard/sync.rs` and `src/proxy/sync.rs` offer, from the scheduler.

pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
