//! The cache of a caller: Envoy, Outrigger, Envoy again, the service.

use serde_json::{Value, json};

use super::envoy::{Envoy, named, socket_address};
use super::{VERSIONS, assert_detail, ours};
use crate::control_plane::read_json;
use crate::pod::{Version, apply, render};
use crate::replay::captured;
use crate::support::{Origin, Proxy, Reply, Response, Setup, eventually, fetch, own_address};

const SERVICE: &str = "outbound|9080||reviews.bookinfo.svc.cluster.local";
const HOST: &str = "reviews.bookinfo.svc.cluster.local:9080";

/// What the routes say so that no request goes round, and the same without.
const SKIPS_MARKED: (&str, &str) =
    ("- {name: x-outrigger-hop, present_match: true, invert_match: true}", "");
/// What they say so that the mark does not leave the pod, and the same without.
const TAKES_MARK: (&str, &str) =
    ("request_headers_to_remove: [x-outrigger-hop]", "request_headers_to_remove: []");

/// A caller's pod, and the service that it calls.
struct Caller {
    service: Origin,
    envoy: Envoy,
    proxy: Proxy,
}

impl Caller {
    /// With the recipe of `istio/outbound.yaml`.
    async fn start(version: Version) -> Self {
        let caller = Self::with(version, &[]).await;
        caller.service.always("/settled", Reply::cached("max-age=600", "settled"));
        let caller_ref = &caller;
        eventually("responses of the cache", || async move {
            for _ in 0..10 {
                caller_ref.get("/settled").await.cache().has("hit").then_some(())?;
            }
            Some(())
        })
        .await;
        caller
    }

    /// With the recipe, spoiled by these changes.
    async fn with(version: Version, changes: &[(&str, &str)]) -> Self {
        let service = Origin::start().await;
        let proxy = Setup::mesh("outbound", "10.77.0.2").policy("{}").start().await;
        let mut objects = render(&format!(
            "--mode outbound --name frontend --namespace shop --selector app=frontend --port 9080 \
             --host reviews.bookinfo.svc.cluster.local --listener-port {}",
            proxy.addr.port()
        ));
        for (from, to) in changes {
            assert!(objects.contains(from), "not in {objects}: {from}");
            objects = objects.replace(from, to);
        }
        let mut resources = captured_for(&service);
        apply(&mut resources, &objects, |_| true);
        let (listener, clusters) = (resources["lds"][0].take(), resources["cds"].take());
        let envoy = Envoy::start(version, listener, clusters).await;
        Self { service, envoy, proxy }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let headers: Vec<_> = [("host", HOST)].into_iter().chain(headers.iter().copied()).collect();
        fetch(self.envoy.addr, method, path, &headers).await
    }

    async fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[]).await
    }

    /// How many requests Envoy has sent to Outrigger, besides health checks.
    async fn sent_to_outrigger(&self) -> u64 {
        self.envoy.stat("cluster.outrigger-egress.upstream_rq_total").await
    }
}

/// What istiod sent, with the routes in the listener and the service's only endpoint in its
/// cluster. Outrigger sends nothing to loopback, so that the listener is elsewhere.
fn captured_for(service: &Origin) -> Value {
    let captured = read_json(&captured("frontend-plain.json")).expect("a captured file");
    let mut listener = named(&captured["lds"], "0.0.0.0_9080");
    listener["address"] = socket_address(&own_address().to_string(), 0);
    let fields = listener.as_object_mut().expect("a listener");
    fields.remove("bind_to_port");
    let mut routes = named(&captured["rds"], "9080");
    routes.as_object_mut().expect("routes").remove("@type");
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager.as_object_mut().expect("an HTTP connection manager").remove("rds");
    manager["route_config"] = routes;
    let mut cluster = named(&captured["cds"], SERVICE);
    cluster.as_object_mut().expect("a cluster").remove("eds_cluster_config");
    cluster["type"] = "STATIC".into();
    let address = socket_address(&service.addr.ip().to_string(), service.addr.port());
    cluster["load_assignment"] = json!({
        "cluster_name": SERVICE,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    });
    let passthrough = named(&captured["cds"], "PassthroughCluster");
    json!({"lds": [listener], "cds": [cluster, passthrough]})
}

#[tokio::test]
async fn the_second_request_does_not_leave_the_pod() {
    for version in VERSIONS {
        let caller = Caller::start(version).await;
        caller.service.always("/a", Reply::cached("max-age=600", "a"));
        caller.get("/a").await.assert_is(200, "a").assert_fwd("uri-miss");
        caller.get("/a").await.assert_is(200, "a").assert_hit();
        assert_eq!(caller.service.hits("/a"), 1);
        let seen = caller.service.last("/a");
        assert!(ours(&seen).is_empty(), "{seen:#?}");
        assert_eq!(seen.header("host"), Some(HOST));
    }
}

#[tokio::test]
async fn a_marked_request_goes_to_the_service_without_its_mark() {
    for version in VERSIONS {
        let caller = Caller::start(version).await;
        caller.service.always("/a", Reply::cached("max-age=600", "a"));
        let before = caller.sent_to_outrigger().await;
        for _ in 0..2 {
            let answer = caller.send("GET", "/a", &[("x-outrigger-hop", "1")]).await;
            answer.assert_is(200, "a");
            assert!(answer.cache().is_absent(), "{answer:#?}");
        }
        assert_eq!(caller.sent_to_outrigger().await, before);
        assert_eq!(caller.service.hits("/a"), 2);
        assert!(ours(&caller.service.last("/a")).is_empty());
    }
}

#[tokio::test]
async fn a_mark_at_outrigger_itself_is_a_loop() {
    for version in VERSIONS {
        // Envoy neither leads marked requests past Outrigger nor takes the mark from them.
        let caller = Caller::with(version, &[SKIPS_MARKED, TAKES_MARK]).await;
        caller.service.always("/a", Reply::cached("max-age=600", "a"));
        let marked = caller.send("GET", "/a", &[("x-outrigger-hop", "1")]).await;
        marked.assert_status(508);
        assert_detail(&marked, "hop");
        // Outrigger's own mark: the request has gone round once, and no more.
        let before = caller.sent_to_outrigger().await;
        caller.get("/a").await.assert_status(508);
        assert_eq!(caller.sent_to_outrigger().await, before + 2);
        assert_eq!(caller.service.hits("/a"), 0);
    }
}

#[tokio::test]
async fn a_loop_whose_mark_is_taken_away_ends_too() {
    for version in VERSIONS {
        let caller = Caller::with(version, &[SKIPS_MARKED]).await;
        caller.service.always("/a", Reply::cached("max-age=600", "a"));
        let before = caller.sent_to_outrigger().await;
        let answer = caller.get("/a").await;
        answer.assert_status(508);
        assert_eq!(caller.sent_to_outrigger().await, before + 2, "{answer:#?}");
        assert_eq!(caller.service.hits("/a"), 0);
    }
}

#[tokio::test]
async fn nothing_fails_when_the_callers_cache_is_gone() {
    for version in VERSIONS {
        let caller = Caller::start(version).await;
        caller.service.always("/a", Reply::cached("max-age=600", "a"));
        caller.get("/a").await.assert_is(200, "a");
        caller.get("/a").await.assert_is(200, "a").assert_hit();
        let Caller { service, envoy, proxy } = caller;
        drop(proxy);
        for n in 1..=20 {
            let answer = fetch(envoy.addr, "GET", "/a", &[("host", HOST)]).await;
            answer.assert_is(200, "a");
            assert_eq!(service.hits("/a"), 1 + n);
        }
    }
}
