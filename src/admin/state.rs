//! What a port of the admin API is given: the state that its pages read, and which pages it has.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use outrigger_control::Controller;
use outrigger_control::xds::XdsStatus;
use outrigger_policy::Side;
use outrigger_proxy::Shared;
use outrigger_store::redis::RedisTier;
use prometheus_client::registry::Registry;
use serde_json::Value;

use crate::admin::ready::Readiness;

/// The state of the process that the pages read.
pub struct Admin {
    /// The data path.
    pub shared: Arc<Shared>,
    /// The source of policy.
    pub controller: Arc<Controller>,
    /// All metrics of the process.
    pub registry: Registry,
    /// Whether the process is ready for traffic.
    pub ready: Arc<Readiness>,
    /// The tier in Redis, where there is one.
    pub tier: Option<Arc<RedisTier>>,
    /// The connection to istiod, where policy comes from it.
    pub xds: Option<Arc<XdsStatus>>,
    /// The side of the pod that each listener serves; `None` for a direct listener.
    pub listeners: Vec<Option<Side>>,
    /// The bootstrap in force, for `/config_dump`.
    pub bootstrap: Value,
    /// The address of the admin port, which the read-only port refers to.
    pub address: String,
    /// When the process began to serve.
    pub began: Instant,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// Which pages a port offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminScope {
    /// All pages, among them those that purge and force circuit breakers. For operators only.
    All,
    /// Liveness, readiness and metrics.
    ReadOnly,
}
