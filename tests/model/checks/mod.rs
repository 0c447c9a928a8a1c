//! What holds in every schedule.

mod breaker;
mod budgets;
mod flight;
mod limiter;
mod table;
