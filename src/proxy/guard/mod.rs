//! What stands between requests and the upstream: who may be sent, and what is learned from how it
//! turned out. The machines themselves are in `outrigger_guard`; here they meet clocks, metrics,
//! the log, and the routes of the policy in force.

mod admit;
mod caller;
mod destinations;
mod ejections;
mod report;
mod routes;
mod watch;

pub(crate) use admit::{Pass, Urgency};
pub(crate) use caller::{CallerDeadline, forget_caller_deadline};
pub(crate) use destinations::{Destinations, destination_name};
pub(crate) use ejections::Ejections;
pub(crate) use report::{NamedBreaker, Pending, Report};
pub use routes::{BreakerState, GuardState, LimiterState};
pub(crate) use routes::{Guards, RouteGuard};
pub(crate) use watch::Watch;
