//! What Outrigger reports about itself: outcomes, metrics, traces, access log, process log.
//!
//! Every request ends in one [`Outcome`], a closed enum with stable strings; the same word stands
//! in `Cache-Status`, in the metric label, in the access log and on the span. Metric handles are
//! resolved when policy is installed, and spans exist only for sampled requests, so that a hit
//! pays for atomic additions and nothing else.

pub mod access_log;
pub mod guard;
pub mod labels;
pub mod logging;
pub mod metrics;
pub mod miss;
pub mod outcome;
pub mod trace;

pub use access_log::AccessLog;
pub use metrics::{Metrics, RouteMetrics};
pub use miss::MissCause;
pub use outcome::{AnsweredBy, Outcome};
pub use trace::{ServerSpan, Tracing};
