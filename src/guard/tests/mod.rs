//! What these machines promise, one caller at a time. Not in the files themselves, for `tests/model`
//! compiles those with primitives that work in its scheduler alone.

mod breaker;
mod gradient;
mod limiter;
mod misses;
mod retry;
mod slots;
mod window;
