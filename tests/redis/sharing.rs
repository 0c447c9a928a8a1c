//! Who shares with whom: routes, workloads, namespaces, policies.

use crate::pods::{ENTRIES, assert_redis_hit, entries, is_redis_hit, lookups, pod, stored};
use crate::support::redis::RedisServer;
use crate::support::{Origin, Proxy, Reply, eventually};

async fn ten_minutes() -> Origin {
    let origin = Origin::start().await;
    origin.on("*", |r| Reply::cached("max-age=600", format!("{} {}", r.path(), r.nth)));
    origin
}

/// Fetches a path through `from` and says whether it is then a hit from Redis
/// for `to`.
async fn shares(from: &Proxy, to: &Proxy, path: &str) -> bool {
    from.get(path).await.assert_status(200);
    stored(from, 1).await;
    let response = to.get(path).await;
    response.assert_status(200);
    is_redis_hit(&response)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_stay_out_of_redis() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let policy = "routes:\n  - name: local\n    match: {path: {prefix: /local}}\n    \
                  cache: {redis: {enabled: false}}\n";
    let (a, b) = pod(&origin, redis.url()).policy(policy).pair().await;
    a.get("/local/x").await.assert_status(200);
    a.get("/local/x").await.assert_hit();
    a.get("/shared/x").await.assert_status(200);
    entries(&redis, 1).await;
    b.get("/local/x").await.assert_is(200, "/local/x 2");
    assert_redis_hit(&b.get("/shared/x").await);
    assert_eq!(redis.keys(ENTRIES).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_leaves_redis_does_not_read_what_it_wrote_before() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let (a, b) = tokio::join!(async { pod(&origin, redis.url()).start().await }, async {
        pod(&origin, redis.url()).cache("{redis: {enabled: false}}").start().await
    });
    assert!(!shares(&a, &b, "/x").await);
    assert_eq!(origin.hits("/x"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_share_only_where_the_route_says_so() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let mut pods = Vec::new();
    for (scope, shared) in [("workload", false), ("namespace", true)] {
        let cache = format!("{{redis: {{scope: {scope}}}}}");
        let cart = pod(&origin, redis.url()).cache(&cache);
        let checkout = cart.clone().set("workload", "checkout");
        let (a, b) = tokio::join!(cart.start(), checkout.start());
        assert_eq!(shares(&a, &b, &format!("/{scope}")).await, shared, "{scope}");
        // They live on: what waits to be written still has to be.
        pods.push((a, b));
    }
    // B wrote its own copy of what it could not share.
    eventually("one entry for each", || async {
        let own = redis.keys("or:shop:checkout:e:*").await.len() == 1;
        (own && redis.keys("or:shop:_shared:e:*").await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(redis.keys(ENTRIES).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_never_share() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    for scope in ["workload", "namespace"] {
        let shop = pod(&origin, redis.url()).cache(&format!("{{redis: {{scope: {scope}}}}}"));
        let bank = shop.clone().set("namespace", "bank");
        let (a, b) = tokio::join!(shop.start(), bank.start());
        assert!(!shares(&a, &b, &format!("/{scope}")).await, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_policy_stored_is_not_used() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let old = pod(&origin, redis.url()).cache("{ttl: {max: 500s}}");
    let new = pod(&origin, redis.url()).cache("{ttl: {max: 30s}}");
    let (a, b) = tokio::join!(old.start(), new.start());
    assert!(!shares(&a, &b, "/x").await);
    assert!(lookups(&b, "policy").await >= 1);
    assert_eq!(origin.hits("/x"), 2);
    // The newer policy's entry is for all that have it.
    stored(&b, 1).await;
    let c = new.start().await;
    let shared = c.get("/x").await;
    shared.assert_is(200, "/x 2");
    assert_redis_hit(&shared);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_another_route_does_not_matter() {
    let (origin, redis) = (ten_minutes().await, RedisServer::start().await);
    let policy = |max: &str| {
        format!(
            "routes:\n  - name: x\n    match: {{path: {{prefix: /x}}}}\n  - name: y\n    \
             match: {{path: {{prefix: /y}}}}\n    cache: {{ttl: {{max: {max}}}}}\n"
        )
    };
    let (a, b) = (policy("500s"), policy("30s"));
    let (a, b) = (pod(&origin, redis.url()).policy(&a), pod(&origin, redis.url()).policy(&b));
    let (a, b) = tokio::join!(a.start(), b.start());
    assert!(shares(&a, &b, "/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_kept_apart() {
    let (origin, redis) = (Origin::start().await, RedisServer::start().await);
    origin.on("*", |r| Reply::cached("max-age=600", r.header("x-user").unwrap_or("nobody")));
    let cache = "{partition: \"header:x-user\"}";
    let (a, b) = pod(&origin, redis.url()).cache(cache).pair().await;
    a.fetch("GET", "/me", &[("X-User", "ann")]).await.assert_is(200, "ann");
    stored(&a, 1).await;
    let bob = b.fetch("GET", "/me", &[("X-User", "bob")]).await;
    bob.assert_is(200, "bob");
    let ann = b.fetch("GET", "/me", &[("X-User", "ann")]).await;
    ann.assert_is(200, "ann");
    assert_redis_hit(&ann);
}
