//! How a failing upstream is met: the document as it is written, and the rules compiled from it.
//!
//! What a route does not say, the document's own `guard` says, and what that leaves out has a
//! default. A route that names its own breaker, limits or budgets has them for itself; all others
//! share those of the upstream.

mod compile;
mod document;
mod kinds;
mod rules;

pub(crate) use compile::{check, rules};
pub use document::{
    BackoffDocument, BreakerDocument, CallerDeadlineDocument, ConcurrencyDocument, GuardDocument,
    MissesDocument, RefreshesDocument, RetriesDocument,
};
pub use kinds::{ClientBy, FailureKind, FailureSet, Priority};
pub use rules::{ConcurrencyPolicy, DeadlineRules, GuardRules, MissPolicy, Own, RetryPolicy};
