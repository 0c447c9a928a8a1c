//! What of a route goes to the tiers that pods share.

use outrigger_policy::Route;
use outrigger_store::{ShareRules, ShareScope};

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
pub(crate) fn scope(route: &Route) -> ShareScope {
    if route.redis.for_namespace { ShareScope::Namespace } else { ShareScope::Workload }
}
