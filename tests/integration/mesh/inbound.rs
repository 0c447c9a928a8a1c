//! The inbound side: to the application in this pod, for callers whom Envoy has authenticated.

use serde_json::Value;

use super::{INBOUND, POD, from_peer};
use crate::support::{Origin, Proxy, Reply};

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const BATCH: &str = "spiffe://cluster.local/ns/shop/sa/batch";
const OTHER: &str = "spiffe://cluster.local/ns/other/sa/frontend";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_address_that_envoy_names_and_is_cached() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "hello"));
    let proxy = INBOUND.proxy("{}").await;
    from_peer(&proxy, origin.addr, "/a", Some(FRONTEND)).await.assert_is(200, "hello");
    from_peer(&proxy, origin.addr, "/a", Some(BATCH)).await.assert_is(200, "hello").assert_hit();
    let seen = origin.last("/a");
    let ours = seen.head.headers.iter().find(|(name, _)| name.starts_with("x-outrigger"));
    assert_eq!(ours, None, "{seen:#?}");
    // Envoy has said what there is to say about the client.
    assert_eq!(seen.header("x-forwarded-for"), None, "{seen:#?}");
    assert_eq!(seen.header("host"), Some("shop.test"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_one_pod_do_not_share_what_is_stored() {
    let (shop, tools) = (Origin::start().await, Origin::start().await);
    shop.always("/a", Reply::cached("max-age=60", "shop"));
    tools.always("/a", Reply::cached("max-age=60", "tools"));
    let proxy = INBOUND.proxy("{}").await;
    from_peer(&proxy, shop.addr, "/a", None).await.assert_is(200, "shop");
    from_peer(&proxy, tools.addr, "/a", None).await.assert_is(200, "tools");
    from_peer(&proxy, shop.addr, "/a", None).await.assert_is(200, "shop").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_kept_apart_by_identity() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let proxy = INBOUND.proxy("routes: [{name: all, cache: {partition: peer}}]").await;
    let get = async |peer| from_peer(&proxy, origin.addr, "/a", peer).await;
    get(Some(FRONTEND)).await.assert_is(200, "1");
    get(Some(BATCH)).await.assert_is(200, "2");
    get(Some(FRONTEND)).await.assert_is(200, "1").assert_hit();
    get(Some(BATCH)).await.assert_is(200, "2").assert_hit();
    // Nobody in particular gets nothing that is somebody's, and leaves nothing.
    for (peer, body) in [(None, "3"), (Some(""), "4"), (Some("frontend"), "5"), (None, "6")] {
        let response = get(peer).await;
        response.assert_is(200, body);
        assert_eq!(response.cache().get("detail"), Some("unknown-peer"), "{response:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_kept_apart_by_namespace() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let proxy = INBOUND.proxy("routes: [{name: all, cache: {partition: namespace}}]").await;
    let get = async |peer| from_peer(&proxy, origin.addr, "/a", Some(peer)).await;
    get(FRONTEND).await.assert_is(200, "1");
    get(BATCH).await.assert_is(200, "1").assert_hit();
    get(OTHER).await.assert_is(200, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_not_told_apart_by_the_workload_that_calls_for_him() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let proxy = INBOUND.proxy("routes: [{name: all, cache: {partition: peer}}]").await;
    let to = origin.addr.to_string();
    for (user, body) in [("Bearer anna", "1"), ("Bearer ben", "2"), ("Bearer anna", "3")] {
        let fields = [
            ("x-outrigger-upstream", to.as_str()),
            ("x-outrigger-peer", FRONTEND),
            ("authorization", user),
        ];
        proxy.fetch("GET", "/a", &fields).await.assert_is(200, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_be_for_some_callers_only() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::ok(r.nth.to_string()));
    let policy = "
routes:
  - name: frontends
    match: {principals: ['*/sa/frontend'], namespaces: [shop]}
    cache: {ttl: {default: 60s}}
  - name: rest
    cache: {enabled: false}
";
    let proxy = INBOUND.proxy(policy).await;
    let get = async |peer| from_peer(&proxy, origin.addr, "/a", Some(peer)).await;
    get(FRONTEND).await.assert_is(200, "1");
    get(FRONTEND).await.assert_is(200, "1").assert_hit();
    get(BATCH).await.assert_is(200, "2");
    get(OTHER).await.assert_is(200, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_to_where_it_must_not_go() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("reached"));
    let port = origin.addr.port();
    let proxy = INBOUND.proxy(&format!("inbound: {{ports: [{port}]}}")).await;
    from_peer(&proxy, origin.addr, "/a", None).await.assert_is(200, "reached");
    let admin = proxy.admin.to_string();
    let own = proxy.addr.to_string();
    for (upstream, status, detail) in [
        (Some("10.0.0.1:8080"), 403, "upstream-not-allowed"),
        (Some("169.254.169.254:80"), 403, "upstream-not-allowed"),
        (Some(admin.as_str()), 403, "upstream-not-allowed"),
        (Some(own.as_str()), 403, "upstream-not-allowed"),
        (Some(&*format!("{POD}:22")), 403, "upstream-not-allowed"),
        (Some("reviews:8080"), 400, "unreadable-address"),
        (None, 400, "no-upstream-named"),
    ] {
        let fields: Vec<_> = upstream.map(|to| ("x-outrigger-upstream", to)).into_iter().collect();
        let response = proxy.fetch("GET", "/a", &fields).await;
        response.assert_status(status);
        assert_eq!(response.cache().get("detail"), Some(detail), "{upstream:?} {response:#?}");
    }
    let twice = [("x-outrigger-upstream", "127.0.0.1:1"), ("x-outrigger-upstream", "127.0.0.1:2")];
    proxy.fetch("GET", "/a", &twice).await.assert_status(400);
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_back_is_refused() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::ok("x"));
    let proxy = INBOUND.proxy("{}").await;
    from_peer(&proxy, origin.addr, "/a", None).await.assert_status(200);
    let to = origin.addr.to_string();
    let hops = origin.last("/a").header("cdn-loop").expect("a CDN-Loop").to_owned();
    let again = [("x-outrigger-upstream", to.as_str()), ("cdn-loop", hops.as_str())];
    proxy.fetch("GET", "/a", &again).await.assert_status(508);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_voids_what_is_stored_for_every_caller() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", format!("{} {}", r.method(), r.nth)));
    let proxy = INBOUND.proxy("routes: [{name: all, cache: {partition: peer}}]").await;
    let to = origin.addr;
    from_peer(&proxy, to, "/a", Some(FRONTEND)).await.assert_is(200, "GET 1");
    from_peer(&proxy, to, "/a", Some(BATCH)).await.assert_is(200, "GET 2");
    let fields = [("x-outrigger-upstream", &*to.to_string()), ("x-outrigger-peer", BATCH)];
    proxy.fetch("POST", "/a", &fields).await.assert_status(200);
    from_peer(&proxy, to, "/a", Some(FRONTEND)).await.assert_is(200, "GET 4");
    from_peer(&proxy, to, "/a", Some(BATCH)).await.assert_is(200, "GET 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_envoy_nobody_has_an_identity() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let policy = "routes: [{name: all, cache: {partition: peer}}]";
    let proxy = crate::support::Setup::of(&origin).policy(policy).start().await;
    let spoofed = [("x-outrigger-peer", FRONTEND), ("x-outrigger-upstream", "127.0.0.1:1")];
    proxy.fetch("GET", "/a", &spoofed).await.assert_is(200, "1");
    proxy.fetch("GET", "/a", &spoofed).await.assert_is(200, "2");
    assert_eq!(origin.last("/a").header("x-outrigger-peer"), None);
}

async fn explained(proxy: &Proxy, query: &str) -> Value {
    let response = proxy.admin(&format!("/explain?{query}")).await;
    response.assert_status(200);
    serde_json::from_slice(&response.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_finds_what_was_stored_for_a_port_and_a_caller() {
    let origin = Origin::start().await;
    origin.always("/a", Reply::cached("max-age=60", "x"));
    let to = origin.addr;
    let policy = format!(
        "inbound: {{ports: [{}]}}\nroutes: [{{name: all, cache: {{partition: peer}}}}]",
        to.port()
    );
    let proxy = INBOUND.proxy(&policy).await;
    from_peer(&proxy, to, "/a", Some(FRONTEND)).await.assert_status(200);
    // The policy names one port, so that it need not be said.
    let url = "url=http%3A%2F%2Fshop.test%2Fa";
    let found = explained(&proxy, &format!("{url}&peer={FRONTEND}")).await;
    assert_eq!(found["stored"]["state"], "hit", "{found:#}");
    let other = explained(&proxy, &format!("{url}&peer={BATCH}")).await;
    assert_eq!(other["stored"]["state"], "miss", "{other:#}");
    let nobody = explained(&proxy, url).await;
    assert_eq!(nobody["policy"]["lookup"]["reason"], "unknown-peer", "{nobody:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_one_name_of_a_service_voids_what_is_stored_under_the_others() {
    let origin = Origin::start().await;
    origin.on("/a", |r| Reply::cached("max-age=60", r.nth.to_string()));
    let aliases = "aliases: {reviews.bookinfo.svc.cluster.local: [reviews, reviews.bookinfo]}";
    let proxy = INBOUND.proxy(aliases).await;
    let to = origin.addr.to_string();
    let send = async |method, host| {
        let fields = [("x-outrigger-upstream", to.as_str()), ("host", host)];
        proxy.fetch(method, "/a", &fields).await
    };
    send("GET", "reviews").await.assert_is(200, "1");
    send("GET", "Reviews.bookinfo:9080").await.assert_is(200, "1").assert_hit();
    assert_eq!(origin.last("/a").header("host"), Some("reviews.bookinfo.svc.cluster.local"));
    send("PUT", "reviews.bookinfo.svc.cluster.local:9080").await.assert_status(200);
    send("GET", "reviews").await.assert_is(200, "3");
    // Somebody else's name is not one of them.
    send("GET", "evil.example").await.assert_is(200, "4");
    let purged = proxy.purge(serde_json::json!({"url": "http://reviews:9080/a"})).await;
    assert!(purged["seq"].is_u64(), "{purged:#}");
    send("GET", "reviews.bookinfo").await.assert_is(200, "5");
}
