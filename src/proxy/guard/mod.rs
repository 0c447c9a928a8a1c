//! Protection of the upstream: which requests may be sent, and what is learned from their results.
//!
//! The state machines themselves are in `outrigger_guard`. This module gives them a clock, names,
//! metrics and the log, and one set of them to each route of the policy in force. It sends nothing:
//! `upstream` asks it before each request and reports to it afterwards.

mod admit;
mod caller;
mod destinations;
mod report;
mod revalidation;
mod routes;

pub(crate) use admit::{Pass, Urgency};
pub(crate) use caller::{CallerDeadline, forget_caller_deadline};
pub(crate) use destinations::{Destinations, destination_name};
pub(crate) use report::{NamedBreaker, Pending, Report};
pub(crate) use revalidation::RevalidationWatch;
pub use routes::{BreakerState, GuardState, LimiterState};
pub(crate) use routes::{Guards, RouteGuard};
