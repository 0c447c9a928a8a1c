//! What of a route goes to the tiers that pods share.

use outrigger_policy::Route;
use outrigger_store::{Scope, ShareRules};

/// What of a route goes to the tiers that pods share.
pub(crate) fn share_rules(route: &Route) -> ShareRules {
    ShareRules {
        enabled: route.redis.enabled,
        scope: scope(route),
        object_bytes_max: route.redis.object_bytes_max,
        ttl_ms_min: route.redis.ttl_ms_min,
    }
}

/// Who shares the responses of a route.
pub(crate) fn scope(route: &Route) -> Scope {
    if route.redis.for_namespace { Scope::Namespace } else { Scope::Workload }
}
