//! Who a request is from: what the certificate says, and nothing that a client says of itself.

use serde_json::{Value, json};

use super::inbound::before;
use super::{BATCH, FRONTEND, VERSIONS, assert_detail, counting, ours};
use crate::support::{Origin, Reply};

const BY_PEER: &str = "routes: [{name: all, cache: {partition: peer}}]";

#[tokio::test]
async fn callers_with_certificates_have_copies_of_their_own() {
    for version in VERSIONS {
        let app = counting().await;
        let mesh = before(app.addr).policy(BY_PEER).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_fwd("uri-miss");
        mesh.get(BATCH, "/a").await.assert_is(200, "2");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
        mesh.get(BATCH, "/a").await.assert_is(200, "2").assert_hit();
        // The application knows the caller by Envoy's own field.
        let seen = app.last("/a");
        let caller = seen.header("x-forwarded-client-cert").unwrap_or_default();
        assert!(caller.contains(&format!("URI={BATCH}")), "{seen:#?}");
        assert!(ours(&seen).is_empty(), "{seen:#?}");
    }
}

#[tokio::test]
async fn without_a_partition_callers_share_a_copy() {
    for version in VERSIONS {
        let app = counting().await;
        let mesh = before(app.addr).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_fwd("uri-miss");
        mesh.get(BATCH, "/a").await.assert_is(200, "1").assert_hit();
        // Envoy tells the application the scheme, by which responses may differ.
        assert_eq!(app.last("/a").header("x-forwarded-proto"), Some("https"));
        mesh.send(None, "GET", "/a", &[]).await.assert_is(200, "2");
        assert_eq!(app.last("/a").header("x-forwarded-proto"), Some("http"));
        mesh.send(None, "GET", "/a", &[]).await.assert_is(200, "2").assert_hit();
        mesh.get(BATCH, "/a").await.assert_is(200, "1").assert_hit();
    }
}

/// What `batch` would say to be taken for the frontend, and to be led to somebody else.
fn lies(elsewhere: &str) -> [Vec<(&str, &str)>; 3] {
    let (_, port) = elsewhere.rsplit_once(':').expect("a port");
    let plain = vec![
        ("x-outrigger-peer", FRONTEND),
        ("x-outrigger-upstream", elsewhere),
        ("x-outrigger-port", port),
        ("x-outrigger-orig-dst", elsewhere),
        ("x-forwarded-client-cert", "By=x;URI=spiffe://cluster.local/ns/shop/sa/frontend"),
    ];
    let twice = [&plain[..], &[("X-Outrigger-Peer", FRONTEND)]].concat();
    // Fields that `Connection` names are for the next hop only: Envoy's own must not go with them.
    let named = ("connection", "x-outrigger-peer, x-outrigger-upstream");
    let hop_by_hop = [&plain[..], &[named]].concat();
    [plain, twice, hop_by_hop]
}

#[tokio::test]
async fn what_a_client_says_of_itself_counts_for_nothing() {
    for version in VERSIONS {
        let (app, elsewhere) = (counting().await, counting().await);
        let mesh = before(app.addr).policy(BY_PEER).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1");
        mesh.get(BATCH, "/a").await.assert_is(200, "2");
        for (n, lie) in lies(&elsewhere.addr.to_string()).iter().enumerate() {
            mesh.send(Some(BATCH), "GET", "/a", lie).await.assert_is(200, "2").assert_hit();
            // Nobody in particular: what he gets is neither stored nor somebody's copy.
            let nobody = mesh.send(None, "GET", "/a", lie).await;
            nobody.assert_is(200, (3 + n).to_string());
            assert_detail(&nobody, "unknown-peer");
        }
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
        assert_eq!(elsewhere.all_requests().len(), 0);
        for seen in app.all_requests() {
            assert!(ours(&seen).is_empty(), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn the_certificate_picks_the_route() {
    const POLICY: &str = "
routes:
  - name: frontends
    match: {principals: ['*/ns/shop/sa/frontend']}
    cache: {ttl: {default: 60s}}
  - name: rest
    cache: {enabled: false}
";
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on("/a", |r| Reply::ok(r.nth.to_string()));
        let mesh = before(app.addr).policy(POLICY).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
        mesh.get(BATCH, "/a").await.assert_is(200, "2");
        let spoofed = [("x-outrigger-peer", FRONTEND)];
        mesh.send(Some(BATCH), "GET", "/a", &spoofed).await.assert_is(200, "3");
        mesh.send(None, "GET", "/a", &spoofed).await.assert_is(200, "4");
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1").assert_hit();
    }
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_does_not_get_in() {
    let app = counting().await;
    let [older, _] = VERSIONS;
    let mesh = before(app.addr).start_before(&app, older).await;
    mesh.get(FRONTEND, "/a").await.assert_is(200, "1");
    let mut client = mesh.connect(Some("spiffe://evil.example/ns/shop/sa/frontend")).await;
    client.request("GET", "/a", &[]).await;
    let answer = client.try_response("GET").await;
    assert!(answer.is_err(), "{answer:#?}");
}

#[tokio::test]
async fn a_certificate_with_two_identities_is_nobodys() {
    for version in VERSIONS {
        let app = counting().await;
        let mesh = before(app.addr).policy(BY_PEER).start_before(&app, version).await;
        mesh.get(FRONTEND, "/a").await.assert_is(200, "1");
        for (n, both) in [(2, [BATCH, FRONTEND]), (3, [FRONTEND, BATCH])] {
            let answer = mesh.get(&both.join(","), "/a").await;
            answer.assert_is(200, n.to_string());
            assert_detail(&answer, "unknown-peer");
        }
    }
}

/// The filter that istiod makes of an AuthorizationPolicy which denies a principal a path.
fn denies(principal: &str, prefix: &str) -> Value {
    let path = json!({"url_path": {"path": {"prefix": prefix}}});
    let caller = json!({"authenticated": {"principal_name": {"exact": principal}}});
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "shadow_rules_stat_prefix": "istio_dry_run_deny_",
            "rules": {
                "action": "DENY",
                "policies": {"ns[bookinfo]-policy[batch]-rule[0]": {
                    "permissions": [{"and_rules": {"rules": [{"or_rules": {"rules": [path]}}]}}],
                    "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [caller]}}]}}],
                }},
            },
        },
    })
}

#[tokio::test]
async fn what_is_stored_is_not_for_whom_istio_denies_it() {
    for version in VERSIONS {
        let app = counting().await;
        let recipe = before(app.addr).authorized(denies(BATCH, "/quotas"));
        let mesh = recipe.start_before(&app, version).await;
        mesh.get(FRONTEND, "/quotas/1").await.assert_is(200, "1").assert_fwd("uri-miss");
        mesh.get(FRONTEND, "/quotas/1").await.assert_is(200, "1").assert_hit();
        let denied = mesh.get(BATCH, "/quotas/1").await;
        denied.assert_is(403, "RBAC: access denied");
        assert!(denied.cache().is_absent(), "{denied:#?}");
        mesh.get(FRONTEND, "/quotas/1").await.assert_is(200, "1").assert_hit();
        // The same copy is for both where nothing is denied.
        mesh.get(FRONTEND, "/reviews/1").await.assert_is(200, "1");
        mesh.get(BATCH, "/reviews/1").await.assert_is(200, "1").assert_hit();
        assert_eq!(app.hits("/quotas/1"), 1);
    }
}

#[tokio::test]
async fn no_other_spelling_of_a_path_leads_to_what_istio_denies() {
    for version in VERSIONS {
        let app = Origin::start().await;
        app.on("*", |r| Reply::cached("max-age=600", r.target()));
        let recipe = before(app.addr).authorized(denies(BATCH, "/quotas"));
        let mesh = recipe.start_before(&app, version).await;
        mesh.get(FRONTEND, "/quotas/1").await.assert_is(200, "/quotas/1");
        for path in [
            "//quotas/1",
            "/./quotas/1",
            "/x/../quotas/1",
            "/x/%2e%2e/quotas/1",
            "/%71uotas/1",
            "/quotas%2F1",
            "/QUOTAS/1",
            "/x%2F..%2Fquotas/1",
            "/;/quotas/1",
            "/quotas//1",
            "http://shop.test/quotas/1",
            "http://shop.test//quotas/1",
        ] {
            let answer = mesh.get(BATCH, path).await;
            assert_ne!(answer.text(), "/quotas/1", "{path}: {answer:#?}");
        }
        assert_eq!(app.hits("/quotas/1"), 1);
        mesh.get(FRONTEND, "/quotas/1").await.assert_hit();
    }
}
