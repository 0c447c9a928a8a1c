//! Nobody gets what was made for somebody else.

use crate::support::{Origin, Proxy, Reply, Setup};

const ANN: (&str, &str) = ("Authorization", "Bearer ann");
const BOB: (&str, &str) = ("Authorization", "Bearer bob");

/// Tells everybody who they are, with this `Cache-Control`.
async fn personal(control: &'static str) -> Origin {
    let origin = Origin::start().await;
    origin
        .on("/me", move |r| Reply::cached(control, r.header("authorization").unwrap_or("nobody")));
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_response_is_not_shared() {
    for control in ["max-age=600", "max-age=600, proxy-revalidate", "no-transform, max-age=600"] {
        let origin = personal(control).await;
        let proxy = Proxy::start(&origin).await;
        proxy.fetch("GET", "/me", &[ANN]).await.assert_is(200, "Bearer ann");
        proxy.fetch("GET", "/me", &[BOB]).await.assert_is(200, "Bearer bob");
        proxy.get("/me").await.assert_is(200, "nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_response_is_shared_when_it_says_so() {
    for control in ["public, max-age=600", "s-maxage=600", "must-revalidate, max-age=600"] {
        let origin = personal(control).await;
        let proxy = Proxy::start(&origin).await;
        proxy.fetch("GET", "/me", &[ANN]).await.assert_is(200, "Bearer ann");
        let shared = proxy.fetch("GET", "/me", &[BOB]).await;
        shared.assert_is(200, "Bearer ann").assert_hit();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_response_is_never_stored() {
    for control in ["private, max-age=600", "private=\"set-cookie\", private", "no-store"] {
        let origin = Origin::start().await;
        origin.on("/p", move |r| Reply::cached(control, r.nth.to_string()));
        let proxy = Proxy::start(&origin).await;
        proxy.get("/p").await.assert_is(200, "1");
        proxy.get("/p").await.assert_is(200, "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_by_header_keeps_identities_apart_and_lets_each_hit() {
    let origin = personal("max-age=600").await;
    let policy = "routes:\n  - name: mine\n    match: {path: {prefix: /}}\n    \
                  cache: {partition: \"header:authorization\"}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    for who in [ANN, BOB] {
        proxy.fetch("GET", "/me", &[who]).await.assert_is(200, who.1);
        proxy.fetch("GET", "/me", &[who]).await.assert_is(200, who.1).assert_hit();
    }
    proxy.get("/me").await.assert_is(200, "nobody");
    assert_eq!(origin.hits("/me"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_by_another_header_does_not_make_authorization_shareable() {
    let origin = personal("max-age=600").await;
    let policy = "routes:\n  - name: tenants\n    match: {path: {prefix: /}}\n    \
                  cache: {partition: \"header:x-tenant\"}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    let tenant = ("X-Tenant", "one");
    proxy.fetch("GET", "/me", &[ANN, tenant]).await.assert_is(200, "Bearer ann");
    let bob = proxy.fetch("GET", "/me", &[BOB, tenant]).await;
    // Sharing is right only if the route's identity is the partition; then it
    // must at least hold between tenants.
    if bob.text() == "Bearer ann" {
        let elsewhere = proxy.fetch("GET", "/me", &[BOB, ("X-Tenant", "two")]).await;
        elsewhere.assert_is(200, "Bearer bob");
    } else {
        bob.assert_is(200, "Bearer bob");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_from_policy_does_not_share_authorized_responses() {
    let origin = Origin::start().await;
    origin.on("/me", |r| Reply::ok(r.header("authorization").unwrap_or("nobody")));
    let policy = "routes:\n  - name: all\n    match: {path: {prefix: /}}\n    \
                  cache: {ttl: {default: 600s}}\n";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.fetch("GET", "/me", &[ANN]).await.assert_is(200, "Bearer ann");
    proxy.fetch("GET", "/me", &[BOB]).await.assert_is(200, "Bearer bob");
}
