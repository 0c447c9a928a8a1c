//! The data path: listeners, the pipeline, coalescing, the guard, and the upstream.
//!
//! Every request goes through the stages of `pipeline`, in the order that its root file shows.
//! Client connections live on worker threads with a single-threaded runtime each (`serve`); what
//! the workers have in common is in [`Shared`]. Configuration arrives as plain [`Settings`] and a
//! policy snapshot: this crate reads no configuration file, only trusted certificates.
//!
//! A process uses it so: [`bind`] the listeners, [`Shared::start`] from [`Parts`], [`run`]; later
//! [`Shared::install`] for each new policy, and [`Running::drain`] at the end. The rest is for the
//! admin port.

mod body;
mod client;
mod clock;
mod coalesce;
mod error;
mod explain;
mod framing;
mod grpc;
mod guard;
mod headers;
mod interim;
mod matcher;
mod max_forwards;
mod mesh;
mod passed;
mod pipeline;
mod purge;
mod refusal;
mod serve;
mod settings;
mod state;
mod sync;
mod upgrade;
mod upstream;
mod uses;

// Settings, as the composition fills them in.
pub use mesh::MeshSettings;
pub use settings::{CoalesceSettings, ConnectionLimits, Settings};
pub use upstream::{
    Address, Balance, EjectionSettings, HealthCheckSettings, HostHeader, PoolSettings, Protocol,
    Timeouts, TlsSettings, UpstreamSettings,
};

// The state of the process, and its run from bind to drain.
pub use clock::Clock;
pub use serve::{Bound, ListenAddress, ListenAddressError, ListenError, Running, bind, run};
pub use state::{Active, Parts, Shared};

// What operators do: purges, and what is adopted from other pods at the start.
pub use pipeline::peers::adopt;
pub use purge::{Matched, PurgeCommand, PurgeError, PurgeResult, PurgeTarget, check_purge, purge};

// What operators see.
pub use error::{Overload, UpstreamError};
pub use explain::{GuardInspection, Inspection, Live, NextAnswer, explain_live};
pub use guard::{BreakerState, GuardState, LimiterState};
pub use upstream::EndpointState;
