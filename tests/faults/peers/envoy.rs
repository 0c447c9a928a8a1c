//! Envoy: outlier detection, a retry on another host within a budget, circuit
//! breaker thresholds, and its cache filter, which serves nothing stale.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::Server;
use crate::origin::Origin;
use crate::scenario::Subject;
use crate::support::installed;

/// Envoy before an origin of its own.
pub fn envoy() -> Subject {
    let origin = Origin::start();
    let endpoints = origin.addrs();
    let server = Server::start(
        "envoy",
        |folder, addr| configuration(folder, addr, endpoints),
        |_, file, _| {
            // In the Python environment, since Envoy comes as a wheel.
            let mut command = Command::new(installed("venv/bin/envoy"));
            command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart"]);
            command.args(["-l", "error"]);
            command
        },
    );
    Subject {
        name: "Envoy",
        addr: server.addr,
        origin,
        fault: |mode| mode,
        _process: Box::new(server),
    }
}

/// Two listeners in a row, because the cache filter fetches by itself: what it fetches passes by
/// the router in its own chain, and with that by retries and time-outs. The second one has these.
///
/// With a panic threshold of 0, ejected hosts get nothing even when all are ejected: the nearest
/// that Envoy has to a breaker that opens on failures.
fn configuration(folder: &Path, addr: SocketAddr, [a, b]: [SocketAddr; 2]) -> String {
    let socket = |addr: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", addr.ip(), addr.port())
    };
    let pipe = format!("{{pipe: {{path: {}}}}}", folder.join("guard").display());
    let cluster = |name: &str, addresses: &[&str]| {
        let endpoint = |address: &&str| format!("        - endpoint: {{address: {address}}}\n");
        let endpoints: String = addresses.iter().map(endpoint).collect();
        CLUSTER.replace("NAME", name) + &endpoints
    };
    let listener = |address: &str, filters: &str, route: &str| {
        LISTENER.replace("ADDRESS", address) + filters + ROUTER + ROUTES + route
    };
    [
        "static_resources:\n  listeners:\n",
        &listener(&socket(addr), CACHE, "                route: {cluster: guard, timeout: 0s}\n"),
        &listener(&pipe, "", GUARDED_ROUTE),
        "  clusters:\n",
        &cluster("guard", &[&pipe]),
        &cluster("shop", &[&socket(a), &socket(b)]),
        GUARD,
    ]
    .concat()
}

const LISTENER: &str = "  - address: ADDRESS
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          http_filters:
";

const CACHE: &str = "          - name: envoy.filters.http.cache
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig
";

const ROUTER: &str = "          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
";

const ROUTES: &str = "          route_config:
            virtual_hosts:
            - name: shop
              domains: [\"*\"]
              routes:
              - match: {prefix: /}
";

const GUARDED_ROUTE: &str = "                route:
                  cluster: shop
                  timeout: 0s
                  retry_policy:
                    retry_on: 5xx,connect-failure,reset
                    num_retries: 1
                    per_try_timeout: 1s
                    per_try_idle_timeout: 1s
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        \"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                    host_selection_retry_max_attempts: 3
";

const CLUSTER: &str = "  - name: NAME
    type: STATIC
    lb_policy: ROUND_ROBIN
    connect_timeout: 0.5s
    circuit_breakers:
      thresholds:
      - max_connections: 1024
        max_pending_requests: 1024
        max_requests: 1024
        retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}
    load_assignment:
      cluster_name: NAME
      endpoints:
      - lb_endpoints:
";

const GUARD: &str = "    common_lb_config: {healthy_panic_threshold: {value: 0}}
    outlier_detection:
      consecutive_5xx: 5
      consecutive_gateway_failure: 5
      enforcing_consecutive_gateway_failure: 100
      interval: 0.5s
      base_ejection_time: 2s
      max_ejection_time: 2s
      max_ejection_percent: 100
";
