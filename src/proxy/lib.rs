//! The data path: listeners, the pipeline, coalescing, the guard, and the upstream.
//!
//! Every request goes through `pipeline`'s stages in the order that its root file shows. Client
//! connections live on worker threads with a single-threaded runtime each (`serve`); what they
//! share is in [`Shared`]. Configuration arrives as plain [`Settings`] and a policy snapshot: no
//! file is read here.

mod app;
mod body;
mod clock;
mod coalesce;
mod guard;
mod headers;
mod mesh;
mod pipeline;
mod purge;
mod serve;
mod settings;
mod sync;
mod upgrade;
mod upstream;

pub use app::{Active, Parts, Shared};
pub use clock::Clock;
pub use guard::{BreakerState, GuardState, LimiterState};
pub use mesh::{MeshSettings, Mode};
pub use pipeline::live::{GuardInspection, Inspection, Live, explain_live};
pub use pipeline::peers::adopt;
pub use purge::{PurgeCommand, PurgeError, check_purge, purge};
pub use serve::{Bound, ListenAddress, ListenError, Running, bind, run};
pub use settings::{ConnectionLimits, Settings};
pub use upstream::{
    Address, Balance, EjectionSettings, EndpointState, HealthCheckSettings, HostHeader, Overload,
    Protocol, Timeouts, TlsSettings, UpstreamError, UpstreamSettings,
};
