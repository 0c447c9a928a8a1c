//! The state machines that stand between callers and a failing upstream: circuit breaker, adaptive
//! concurrency limit, retry budget, miss budget, back-off, early refresh.
//!
//! Pure: time and randomness are passed in, and nothing here does I/O or logs. Each machine is
//! shared by all workers and keeps its state behind one short lock, which is taken for requests to
//! the upstream and never for a hit. The concurrent ones are model checked in `tests/model`.

mod backoff;
mod breaker;
mod early;
mod gradient;
mod limiter;
mod misses;
mod retry;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod transition;
mod window;

pub use backoff::{Backoff, BackoffRules};
pub use breaker::{
    Admitted, Breaker, BreakerRules, BreakerStatus, Force, Reason, State, Ticket, TicketResult,
    Transition,
};
pub use early::is_due_early;
pub use limiter::{
    Acquired, Limiter, LimiterRules, LimiterStatus, Permit, Queued, Rank, Sample, Shed,
};
pub use misses::{MissBudget, MissPermit, MissRules, OverBudget};
pub use retry::{NoRetry, RetryBudget};
pub use slots::{Slot, Slots};
