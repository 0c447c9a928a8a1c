//! The recipe of `istio/inbound-sidecar.yaml`, by which all requests go through Outrigger.

use super::inbound::{Inbound, before};
use super::through::{answer, call, echoes, page_is_cached, streams, tunnels};
use super::{BATCH, FRONTEND, VERSIONS, assert_detail, counting, ours};
use crate::support::{H2Origin, Origin, fields};

const BY_PEER: &str = "routes: [{name: all, cache: {partition: peer}}]";

#[tokio::test]
async fn by_a_sidecar_resource_callers_are_known_by_their_certificates() {
    for version in VERSIONS {
        let app = counting().await;
        let recipe = before(app.addr).policy(BY_PEER).by_sidecar();
        let mesh = recipe.start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_fwd("uri-miss");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
        mesh.get(BATCH, "/a").await.assert_is(200, "2");
        let spoofed = [("x-outrigger-peer", FRONTEND), ("x-outrigger-upstream", "127.0.0.1:1")];
        mesh.send(Some(BATCH), "GET", "/a", &spoofed).await.assert_is(200, "2").assert_hit();
        let nobody = mesh.send(None, "GET", "/a", &spoofed).await;
        nobody.assert_is(200, "3");
        assert_detail(&nobody, "unknown-peer");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
        for seen in app.all_requests() {
            assert!(ours(&seen).is_empty(), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn by_a_sidecar_resource_upgrades_and_streams_pass_too() {
    for version in VERSIONS {
        let app = Origin::start().await;
        echoes(&app);
        let mesh = before(app.addr).by_sidecar().start_before(&app, version).await;
        tunnels(&mesh, Some(FRONTEND)).await;
        streams(&mesh, &app).await;
    }
}

#[tokio::test]
async fn by_a_sidecar_resource_grpc_passes_through_the_cache() {
    for version in VERSIONS {
        let app = H2Origin::start(answer).await;
        let mesh = before(app.addr).by_sidecar().grpc().start(version).await;
        let client = mesh.connect_h2(Some(FRONTEND)).await;
        page_is_cached(&client).await;
        for _ in 0..2 {
            let answer = call(&client).await;
            assert_eq!((answer.status(), &*answer.body), (200, &b"answer"[..]));
            assert_eq!(answer.trailers, fields(&[("grpc-status", "0"), ("x-sum", "42")]));
            assert!(!answer.cache().is_absent() && !answer.cache().has("hit"), "{answer:#?}");
        }
        let seen = app.requests().pop().unwrap();
        assert_eq!(seen.trailers, fields(&[("x-end", "1")]));
    }
}

/// What Envoy adds for Outrigger reaches the application when it takes its place. It must not be
/// what a client said.
async fn tells_the_truth(mesh: &Inbound, app: &Origin) {
    let spoofed = [("x-outrigger-peer", FRONTEND), ("x-outrigger-upstream", "10.0.0.1:1")];
    for identity in [Some(BATCH), None] {
        mesh.send(identity, "GET", "/spoofed", &spoofed).await.assert_status(200);
        let seen = app.last("/spoofed");
        assert_eq!(seen.header("x-outrigger-peer"), identity, "{seen:#?}");
        let named = seen.header("x-outrigger-upstream");
        assert_eq!(named, Some(mesh.app.to_string().as_str()), "{seen:#?}");
    }
}

#[tokio::test]
async fn every_request_after_the_cache_was_killed_is_answered() {
    for by_sidecar in [true, false] {
        for version in VERSIONS {
            let app = counting().await;
            let recipe = before(app.addr);
            let recipe = if by_sidecar { recipe.by_sidecar() } else { recipe };
            let mut mesh = recipe.start_before(&app, version).await;
            mesh.get(FRONTEND, "/a").await.assert_is(200, "1");
            mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
            mesh.kill().await;
            // At first Envoy has to find out for itself, later its health check knows.
            for n in 0..20 {
                mesh.get(FRONTEND, "/a").await.assert_is(200, (2 + 2 * n).to_string());
                let empty = [("content-length", "0")];
                let wrote = mesh.send(Some(BATCH), "POST", "/a", &empty).await;
                wrote.assert_is(200, (3 + 2 * n).to_string());
                assert!(wrote.cache().is_absent(), "{wrote:#?}");
            }
            tells_the_truth(&mesh, &app).await;
        }
    }
}
